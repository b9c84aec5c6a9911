"""The API keys that an engine server takes: from the command line, a file, the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sage.common.errors import ConfigError

KEY_VARIABLE = "SAGE_ENGINE_API_KEY"


def read_keys(given: Iterable[str], file: str | None) -> list[str]:
    """The keys that are valid: those of the command line, of a file (one a line), of the environment (with commas).

    Raises ConfigError for a file that cannot be read or holds none, and for a key with white space or other characters
    that do not travel in a header.
    """
    keys = [*given, *(key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip())]
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read the API keys in {file}", cause=str(error)) from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no API key", hint="one key a line")
        keys += found
    if not all(key.isascii() and key.isprintable() and " " not in key and key for key in keys):
        raise ConfigError("An API key has characters that cannot be sent", hint="letters, digits and punctuation")
    return keys
