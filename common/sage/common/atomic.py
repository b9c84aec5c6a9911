"""JSON files that are either wholly there or not: write to a neighbour, sync, rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sage.common.errors import StateError

__all__ = ["read_json", "set_aside", "write_json"]


def write_json(path: Path, obj: object, mode: int = 0o600) -> None:
    """Replace `path` by `obj` as JSON. A reader sees the old file or the new one, never a part.

    Raises StateError when the disk is full or the directory cannot be written; the old file is then untouched.
    """
    data = json.dumps(obj, indent=1, ensure_ascii=False).encode() + b"\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StateError(
            f"Cannot write {path}",
            cause=error.strerror or str(error),
            hint=f"Free space or give yourself write access to {path.parent}",
            details={"path": str(path)},
        ) from error


def read_json(path: Path) -> Any:
    """The content of `path`. FileNotFoundError when there is none; StateError when it cannot be read or is no JSON."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"Cannot read {path}", cause=error.strerror or str(error), details={"path": str(path)}
        ) from error
    try:
        return json.loads(data)
    except ValueError as error:
        raise StateError(
            f"{path} is damaged",
            cause=f"not valid JSON ({error})",
            hint=f"Move it away and run the command again:  mv {path} {path}.bad",
            details={"path": str(path)},
        ) from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.corrupt-<time>` beside itself; returns the new path."""
    import time

    stem = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    kept = path.with_name(stem)
    number = 1
    while kept.exists():
        kept = path.with_name(f"{stem}-{number}")
        number += 1
    try:
        path.replace(kept)
    except OSError as error:
        raise StateError(f"Cannot move the damaged {path} away", cause=error.strerror or str(error)) from error
    return kept
