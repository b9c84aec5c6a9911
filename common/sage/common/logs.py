"""Structured logs: one line an event, with fields, without secrets.

    log = get_logger("sage.gateway")
    log.info("engine is back", port=port, restarts=1)     # keyword arguments become fields

A program calls `configure_logging(component, home=…)` once. In a daemon that the supervisor started (it sets
SAGE_DAEMON) the lines go to stderr, which is the daemon's log file already; elsewhere to `.sage/logs/<component>.log`,
rotated by size. A full disk never stops a program: lines are dropped, and stderr hears of it once.
"""

from __future__ import annotations

import contextlib
import json as _json
import logging
import logging.handlers
import os
import re
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.common.home import SageHome

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

__all__ = ["StructuredLogger", "configure_logging", "get_logger", "redact", "tail"]

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 3
_RESERVED = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})
_MASK = "***"
_SECRETS = (
    re.compile(r"\b(sk-|hf_|ghp_|gsk_|xox[abp]-)[A-Za-z0-9_\-]{4,}"),
    re.compile(
        r"(?i)(\bbearer\s+|\bauthorization[\"']?\s*[:=]\s*[\"']?(?:basic|token|digest)\s+)[A-Za-z0-9._~+/=\-]{4,}"
    ),
    re.compile(
        r"(?i)([\"']?\b[A-Za-z0-9_\-]*(?:api[_\-]?key|secret|password|passwd|access[_\-]?token|auth[_\-]?token|hf_token)"
        r"[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&}]+"
    ),
    re.compile(r"(?i)(\btoken[\"']?\s*[=:]\s*[\"']?)[A-Za-z0-9._\-]{16,}"),
    re.compile(r"(://[^\s/:@]+:)[^\s/@]+(?=@)"),
)


def redact(text: str) -> str:
    """The text without secrets: API keys, tokens, passwords and bearer credentials become `***`."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


class StructuredLogger(_Adapter):
    """A logger whose keyword arguments become fields of the line. `%s` arguments work too."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        fields = {**(self.extra or {}), **{name: kwargs.pop(name) for name in list(kwargs) if name not in _RESERVED}}
        extra = dict(kwargs.get("extra") or {})
        extra["sage_fields"] = {**fields, **extra.pop("sage_fields", {})}
        kwargs["extra"] = extra
        return msg, kwargs

    def bind(self, **fields: object) -> StructuredLogger:
        """A logger that adds these fields to every line."""
        return StructuredLogger(self.logger, {**(self.extra or {}), **fields})


def get_logger(name: str, **fields: object) -> StructuredLogger:
    """The logger of a module, with fields that stand on each of its lines."""
    return StructuredLogger(logging.getLogger(name), fields)


def configure_logging(
    component: str,
    *,
    home: SageHome | None = None,
    level: str = "INFO",
    json: bool = False,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Send this process's log lines to their place (see the module's docstring). A second call replaces the first."""
    formatter = JsonFormatter(component) if json else PlainFormatter(component)
    supervised = bool(os.environ.get("SAGE_DAEMON"))
    handler: logging.Handler
    if home is None or supervised:
        handler = _StderrHandler()
    else:
        handler = _RotatingHandler(home.logs / f"{component}.log", max_bytes)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _SafeHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())


class PlainFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO  gateway sage.llm.gateway: message key=value`."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        text = f"{_stamp(record)} {record.levelname:<7} {self._component} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        return redact(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, component, logger, message, the fields, and error when there is one."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname,
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line[name if name not in line else f"field_{name}"] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return redact(_json.dumps(line, ensure_ascii=False, default=str))


class _SafeHandler(logging.Handler):
    """Drops what cannot be written; says so once on stderr. Logging is never a reason to stop."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        error = sys.exc_info()[1]
        if isinstance(error, OSError | ValueError) and not self._told:
            self._told = True
            _say(f"sage: log lines are being dropped: {error}")
        elif not isinstance(error, OSError | ValueError):
            _say(f"sage: a log line of {record.name} could not be formatted: {error!r}")


class _StderrHandler(_SafeHandler, logging.StreamHandler[Any]):
    def __init__(self) -> None:
        logging.StreamHandler.__init__(self, sys.stderr)


class _RotatingHandler(_SafeHandler, logging.handlers.RotatingFileHandler):
    """Opens the file with the first line, so that an unwritable directory costs lines and not the program."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        logging.handlers.RotatingFileHandler.__init__(
            self, path, maxBytes=max_bytes, backupCount=BACKUPS, encoding="utf-8", delay=True
        )

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is still buffered finds no room either
            super().close()


def tail(path: Path, lines: int, *, since: int = 0, max_bytes: int = 256 * 1024) -> list[str]:
    """The last `lines` lines of a log (redacted), reading at most `max_bytes` from its end and nothing before byte
    `since`. Empty when there is no such file."""
    if lines <= 0:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - max_bytes, since if since <= size else 0)  # a rotated file is shorter than it was
            file.seek(start)
            data = file.read(max_bytes)
    except OSError:
        return []
    rows = data.decode("utf-8", errors="replace").splitlines()
    if start > since and start > 0 and len(rows) > 1:
        rows = rows[1:]  # the first one may be cut
    return [redact(row) for row in rows[-lines:]]


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "sage_fields", None)
    return fields if isinstance(fields, dict) else {}


def _plain(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return _json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s"=]', text) else text


def _stamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _say(text: str) -> None:
    try:
        print(redact(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
