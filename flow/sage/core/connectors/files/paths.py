"""Finding and opening files, with errors that say what to do."""

from __future__ import annotations

import errno
import glob
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TypeAlias, cast

from sage.common.errors import PipelineError

__all__ = ["PathLike", "checked_database", "checked_paths", "file_errors", "find_files", "is_packed", "open_bytes"]

PathLike: TypeAlias = str | os.PathLike[str]

_HINTS = {
    errno.ENOENT: "check the path",
    errno.EACCES: "give this user permission, or run as the owner",
    errno.EPERM: "give this user permission, or run as the owner",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENOSPC: "free space on that disk; with checkpoints the job can go on where it was",
    errno.EDQUOT: "free space in your quota; with checkpoints the job can go on where it was",
    errno.EFBIG: "raise the limit for the size of files (ulimit -f)",
    errno.EROFS: "that disk is read-only: name a place on another",
}
_MAGIC = frozenset("*?[")


def checked_paths(path: PathLike | Sequence[PathLike]) -> tuple[str, ...]:
    """Paths as the user gave them, absolute, so that a job goes on with the same files from another folder."""
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not given:
        raise PipelineError("No file to read", cause="the list of paths is empty")
    return tuple(os.path.abspath(Path(p).expanduser()) for p in given)  # noqa: PTH100 - links stay


def checked_database(database: PathLike) -> str:
    """A URL as it is, a path absolute."""
    given = os.fspath(database)
    return given if "://" in given else checked_paths(given)[0]


def find_files(paths: Sequence[str]) -> list[str]:
    """The files that these files, folders (all files directly in them, hidden ones left out) and patterns name.

    In the order of the paths, by name within each, each once. Raises PipelineError when one names nothing.
    """
    found: dict[str, None] = {}
    for path in paths:
        with file_errors(path, "read"):
            if Path(path).is_dir():
                matched = sorted(str(p) for p in Path(path).iterdir() if p.is_file() and not p.name.startswith("."))
            elif _MAGIC & set(path) and not Path(path).exists():
                matched = sorted(p for p in glob.glob(path, recursive=True) if Path(p).is_file())  # noqa: PTH207
            else:
                Path(path).stat()
                matched = [path]
        if not matched:
            raise PipelineError(f"Nothing to read at {path}", cause="no file matches", hint="check the path")
        found.update(dict.fromkeys(matched))
    return list(found)


def is_packed(path: str) -> bool:
    """Whether it is read through gzip: then it cannot be read in parts."""
    return path.endswith(".gz")


def open_bytes(path: str, offset: int = 0) -> IO[bytes]:
    """The file, unpacked if its name ends with .gz, from an offset into what is unpacked.

    Raises PipelineError when it cannot be opened, or is shorter than the offset.
    """
    with file_errors(path, "read"):
        opened = cast("IO[bytes]", gzip.open(path) if is_packed(path) else open(path, "rb"))  # noqa: SIM115
        if offset:
            size = os.fstat(opened.fileno()).st_size if not is_packed(path) else offset
            if offset > size or opened.seek(offset) != offset:
                opened.close()
                raise PipelineError(
                    f"{path} is shorter than it was",
                    cause=f"{offset:,} bytes of it were read before; now it has {size:,}",
                    hint="bring the file back, or start the job from the beginning",
                )
        return opened


class file_errors:  # noqa: N801 - used as a statement
    """Tells what the operating system said about this file as a PipelineError; `action`: read, write."""

    def __init__(self, path: PathLike, action: str) -> None:
        self._path = path
        self._action = action

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            raise PipelineError(
                f"{self._path} is damaged", cause=str(error), hint="it is cut short, or no gzip file"
            ) from error
        if isinstance(error, OSError):
            cause = error.strerror or str(error)
            hint = _HINTS.get(error.errno or 0, "")
            raise PipelineError(f"Cannot {self._action} {self._path}", cause=cause, hint=hint) from error
