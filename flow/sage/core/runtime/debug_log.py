"""SAGE's own log messages on stderr, at the level that a person asked for."""

from __future__ import annotations

import logging
import sys

from sage.common.errors import ConfigError
from sage.core.graph.origin import Origin

__all__ = ["show_logs"]

_LOGGER = "sage"
_handler: logging.Handler | None = None


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment (a live display and tests replace it)."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def show_logs(level: str | int, origin: Origin) -> None:
    """Show what SAGE logs at `level` (a name or number of the logging module) and above; again: another level.

    A program that has configured logging itself gets the messages through its own handlers alone. Raises ConfigError.
    """
    global _handler
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigError(
            f"log_level has a wrong value ({origin})",
            cause=f"{level!r} is no level",
            hint="one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        )
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(number)
    if _handler is None and not logger.handlers and not logging.getLogger().handlers:
        _handler = _Stderr()
        _handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(_handler)
