"""Settings that a person has made: environment, ``.env``, ``sage.toml``; neither a default nor what happens to run."""

from __future__ import annotations

from sage.common.config.settings import Setting, Settings
from sage.common.home import SageHome


def chosen(key: str, home: SageHome, settings: Settings | None = None) -> Setting | None:
    """The setting ``key`` where somebody has set it; None where it is a default or comes from daemon.json."""
    setting = (settings or Settings.load(home)).get(key)
    return None if setting.is_default or setting.origin == str(home.daemon_json) else setting


def chosen_text(key: str) -> str | None:
    """The value of ``key`` for the home at hand, where somebody has set it."""
    setting = chosen(key, SageHome.find())
    return None if setting is None or setting.value is None else str(setting.value)
