"""Layered settings that know where each value comes from (SPEC P4).

Order, the first that has a value wins: argument > environment (then `.env`) > `sage.toml` > the running stack's
daemon.json > default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sage.common.config.dotenv import read_dotenv
from sage.common.config.ports import SagePorts, parse_port
from sage.common.errors import ConfigError
from sage.common.home import SageHome

__all__ = ["KEYS", "Setting", "SettingKey", "Settings"]

Value = str | int | None


class SettingKey(NamedTuple):
    name: str
    env: str
    default: Value
    help: str
    secret: bool = False
    is_port: bool = False


KEYS: dict[str, SettingKey] = {
    key.name: key
    for key in (
        SettingKey(
            "base_url",
            "SAGE_UNIFIED_BASE_URL",
            f"http://localhost:{SagePorts.GATEWAY_DEFAULT}/v1",
            "The gateway that clients talk to",
        ),
        SettingKey("chat.base_url", "SAGE_CHAT_BASE_URL", None, "An OpenAI-compatible chat server outside the stack"),
        SettingKey("chat.model", "SAGE_CHAT_MODEL", None, "The chat model; unset: the first that the gateway knows"),
        SettingKey("chat.api_key", "SAGE_CHAT_API_KEY", None, "The key for the chat server", secret=True),
        SettingKey("embedding.base_url", "SAGE_EMBEDDING_BASE_URL", None, "An embedding server outside the stack"),
        SettingKey("embedding.model", "SAGE_EMBEDDING_MODEL", None, "The embedding model"),
        SettingKey(
            "embedding.api_key", "SAGE_EMBEDDING_API_KEY", None, "The key for the embedding server", secret=True
        ),
        SettingKey("gateway.port", "SAGE_GATEWAY_PORT", SagePorts.GATEWAY_DEFAULT, "The gateway's port", is_port=True),
        SettingKey("llm.port", "SAGE_LLM_PORT", SagePorts.LLM_DEFAULT, "The LLM engine's port", is_port=True),
        SettingKey(
            "embedding.port",
            "SAGE_EMBEDDING_PORT",
            SagePorts.EMBEDDING_DEFAULT,
            "The embedding server's port",
            is_port=True,
        ),
        SettingKey("hf.token", "HF_TOKEN", None, "Hugging Face token for gated models", secret=True),
        SettingKey("hf.endpoint", "HF_ENDPOINT", None, "Where models are downloaded from"),
    )
}


_MODEL_KEYS = {"llm": "chat.model", "embedding": "embedding.model"}


class Setting(NamedTuple):
    """One value and where it comes from, e.g. "argument", "environment (SAGE_LLM_PORT)", "default"."""

    key: str
    value: Value
    origin: str

    @property
    def shown(self) -> str:
        """The value for a screen: secrets are masked, a missing one is empty."""
        if self.value is None:
            return ""
        text = str(self.value)
        if not KEYS[self.key].secret:
            return text
        return f"{text[:3]}…{text[-2:]}" if len(text) > 12 else "…"

    @property
    def is_default(self) -> bool:
        return self.origin == "default"


class _Layer(NamedTuple):
    values: Mapping[str, Value]
    origins: Mapping[str, str]


class Settings:
    """All settings as they hold here and now; iterating gives them in the order of KEYS."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers

    @classmethod
    def load(
        cls,
        home: SageHome | None = None,
        project_dir: Path | None = None,
        overrides: Mapping[str, Value] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read every layer once.

        `project_dir` holds `.env` and `sage.toml`; by default the current directory and then the one of `.sage/` are
        looked at. An override of None counts as not given. Raises ConfigError (unknown key, wrong value, damaged
        file); a damaged daemon.json counts as none, because the supervisor repairs it.
        """
        home = home or SageHome.find()
        folders = [project_dir] if project_dir is not None else _folders(home)
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        for key in given:
            _known(key, "argument")
        layers = [
            _Layer(given, dict.fromkeys(given, "argument")),
            _environment(os.environ if environ is None else environ, "environment ({name})"),
        ]
        layers += [_environment(read_dotenv(folder), f"{folder / '.env'} ({{name}})") for folder in folders]
        layers += [_project_file(folder / "sage.toml") for folder in folders]
        layers.append(_running_stack(home))
        return cls(layers)

    def get(self, key: str) -> Setting:
        """The setting `key`. Raises ConfigError (naming the nearest key) when there is no such key."""
        spec = _known(key, "setting")
        for layer in self._layers:
            if key in layer.values:
                return Setting(key, _typed(spec, layer.values[key], layer.origins[key]), layer.origins[key])
        return Setting(key, spec.default, "default")

    def text(self, key: str) -> str | None:
        """The value as text; None when it is not set."""
        value = self.get(key).value
        return None if value is None else str(value)

    def port(self, key: str) -> int:
        """The value of a port setting."""
        value = self.get(key).value
        if not isinstance(value, int):
            raise ConfigError(f"{key} is not a port", cause=f"its value is {value!r}")
        return value

    def __iter__(self) -> Iterator[Setting]:
        return (self.get(key) for key in KEYS)


def _folders(home: SageHome) -> list[Path]:
    try:
        return list(dict.fromkeys((Path.cwd(), home.project)))
    except FileNotFoundError:  # the current directory was removed
        return [home.project]


def _typed(spec: SettingKey, value: Value, origin: str) -> Value:
    if spec.is_port and value is not None:
        return parse_port(str(value), f"{spec.name} from {origin}")
    return value if value is None else str(value)


def _known(key: str, what: str) -> SettingKey:
    spec = KEYS.get(key)
    if spec is not None:
        return spec
    import difflib

    near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.4)
    raise ConfigError(
        f"There is no setting {key!r}",
        cause=f"unknown name in {what}",
        hint=f"Did you mean {near[0]!r}?" if near else "See them all:  sage config show",
    )


def _environment(environ: Mapping[str, str], origin: str) -> _Layer:
    found = {key.name: environ[key.env] for key in KEYS.values() if environ.get(key.env)}
    return _Layer(found, {name: origin.format(name=KEYS[name].env) for name in found})


def _project_file(path: Path) -> _Layer:
    if not path.is_file():
        return _Layer({}, {})
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # a TOML error is a ValueError and names line and column
        raise ConfigError(f"Cannot read {path}", cause=str(error), hint=f"Correct {path}") from error
    values: dict[str, Value] = {}
    for key, value in _flat(content):
        _known(key, str(path))
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigError(
                f"{key} in {path} must be text or a whole number", cause=f"it is {value!r}", hint=f"Correct {path}"
            )
        values[key] = value
    return _Layer(values, dict.fromkeys(values, str(path)))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _running_stack(home: SageHome) -> _Layer:
    """Ports and models of the daemons that run now; those of a stack that died count for nothing."""
    from sage.common.stack import read_status

    values: dict[str, Value] = {}
    for daemon in read_status(home).daemons:
        if not daemon.running or not daemon.port:
            continue
        if f"{daemon.kind}.port" in KEYS:
            values.setdefault(f"{daemon.kind}.port", daemon.port)
        if daemon.kind == "gateway":
            values.setdefault("base_url", f"{daemon.url}/v1")
        if daemon.kind in _MODEL_KEYS and daemon.model:
            values.setdefault(_MODEL_KEYS[daemon.kind], daemon.model)
    return _Layer(values, dict.fromkeys(values, str(home.daemon_json)))
