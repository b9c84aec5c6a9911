"""One file that grows. A restore cuts it back to the length that it had at the checkpoint (as Flink's `valid-length`),
so no record is in it twice; what was written since is visible before it is safe."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sage.common.errors import StateError
from sage.core.connectors.base import Sink, SinkContext, SinkWriter
from sage.core.connectors.files.encoders import FileEncoder, RecordFile
from sage.core.connectors.files.paths import file_errors
from sage.core.runtime.events import Batch

__all__ = ["SingleFileSink"]


@dataclass(frozen=True)
class SingleFileSink(Sink[Any]):
    """Written by one subtask; a job that begins anew begins with an empty file."""

    path: str
    encoder: FileEncoder

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        """See Sink."""
        return SingleFileWriter(self)


class SingleFileWriter(SinkWriter[Any]):
    """A committable is [checkpoint, length of the file]."""

    def __init__(self, sink: SingleFileSink) -> None:
        self._path = Path(sink.path)
        self._encoder = sink.encoder
        self._file: IO[bytes] | None = None
        self._records: RecordFile | None = None

    def recover(self, committables: Sequence[Any]) -> None:
        """See SinkWriter: opens the file and cuts it."""
        length = max(committables)[1] if committables else 0
        with file_errors(self._path, "write"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            self._file = os.fdopen(handle, "r+b" if _is_regular(handle) else "wb", buffering=2**17)
            if not _is_regular(handle):  # a terminal, a pipe: there is nothing to cut
                self._records = self._encoder.begin(self._file)
                return
            size = os.fstat(handle).st_size
            if size < length:
                raise StateError(
                    f"{self._path} is shorter than it was",
                    cause=f"it had {length:,} bytes at the checkpoint, now it has {size:,}",
                    hint="bring the file back, or start the job from the beginning",
                )
            head = self._file.readline() if length else b""
            self._file.truncate(length)
            self._file.seek(length)
            self._records = self._encoder.begin(self._file, head)

    def write(self, batch: Batch) -> None:
        """See SinkWriter."""
        assert self._records is not None, "recover() opens the file"
        with file_errors(self._path, "write"):
            self._records.write(batch.records)

    def flush(self) -> None:
        """See SinkWriter."""
        if self._file is not None:
            with file_errors(self._path, "write"):
                self._file.flush()

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """See SinkWriter: what was written so far is on the disk."""
        assert self._file is not None, "recover() opens the file"
        with file_errors(self._path, "write"):
            self._file.flush()
            if not _is_regular(self._file.fileno()):
                return [[checkpoint_id, 0]]
            os.fsync(self._file.fileno())
            return [[checkpoint_id, self._file.tell()]]

    def close(self) -> None:
        """See SinkWriter."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _is_regular(handle: int) -> bool:
    return stat.S_ISREG(os.fstat(handle).st_mode)
