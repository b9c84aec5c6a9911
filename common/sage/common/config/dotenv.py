"""`.env` files: NAME=value lines, for the settings that a project keeps out of version control."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from sage.common.errors import ConfigError

__all__ = ["export_dotenv", "parse_dotenv", "read_dotenv"]

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def parse_dotenv(text: str, origin: str = ".env") -> dict[str, str]:
    """NAME -> value. Quotes, `export`, blank lines and comments are understood; nothing is expanded.

    The file is shared with other tools, so lines of another syntax are left out; but one that speaks of SAGE and is
    not NAME=value raises ConfigError, which names it.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None and "SAGE_" not in line:
            continue
        if match is None:
            raise ConfigError(
                f"{origin}, line {number} is not NAME=value", hint=f"Correct or comment out line {number} of {origin}"
            )
        values[match[1]] = _value(match[2])
    return values


def _value(text: str) -> str:
    if text[:1] == "'":
        end = text.find("'", 1)
        return text[1:end] if end > 0 else text[1:]
    if text[:1] == '"':
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if quoted:
            return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), quoted[1])
        return text[1:]
    return "" if text.startswith("#") else re.split(r"\s+#", text, maxsplit=1)[0].strip()


def read_dotenv(folder: Path) -> dict[str, str]:
    """The `.env` of a folder; empty when there is none. Raises ConfigError when it cannot be read."""
    path = folder / ".env"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # a virtual environment is often named .env
        return {}
    except OSError as error:
        raise ConfigError(
            f"Cannot read {path}", cause=error.strerror or str(error), hint=f"Give yourself read access to {path}"
        ) from error
    return parse_dotenv(text, str(path))


def export_dotenv(folder: Path, environ: MutableMapping[str, str] | None = None) -> list[str]:
    """Put the names of a folder's `.env` into the environment where they are missing; returns those that were set."""
    target = os.environ if environ is None else environ
    missing = {name: value for name, value in read_dotenv(folder).items() if name not in target}
    target.update(missing)
    return sorted(missing)
