"""A folder of part files that appear whole, each exactly once (after Flink's FileSink).

Records go into hidden files. At a barrier these are closed and flushed to the disk; when the checkpoint is complete
they are renamed to `part-<subtask>-<checkpoint>-<number>-<sink><suffix>`, which is atomic. The names tell what a
restore has to do: it renames what its checkpoint promised, and removes the sink's files that came after it. So the
folder always holds exactly what the job had put out up to a checkpoint; a job that begins anew begins with none.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sage.core.connectors.base import Sink, SinkContext, SinkWriter
from sage.core.connectors.files.encoders import FileEncoder, RecordFile
from sage.core.connectors.files.paths import file_errors
from sage.core.runtime.events import Batch

__all__ = ["PartsSink"]

_UNCHECKED = 99_999_999  # stands for the end of a job without checkpoints, in names


@dataclass(frozen=True)
class PartsSink(Sink[Any]):
    """`roll_size`: bytes after which another file begins. `append`: files of earlier runs stay when a job begins anew,
    and those that came after the checkpoint of a restore stay too."""

    path: str
    encoder: FileEncoder
    roll_size: int = 128 * 2**20
    append: bool = False
    exactly_once = True

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        """See Sink."""
        return PartsWriter(self, context)


class PartsWriter(SinkWriter[Any]):
    """A committable is [checkpoint, [hidden name, final name], …]; there is one for every checkpoint, so that a restore
    knows which it is."""

    def __init__(self, sink: PartsSink, context: SinkContext) -> None:
        self._sink = sink
        self._folder = Path(sink.path)
        self._subtask, self._parallelism = context.subtask, context.parallelism
        self._id = hashlib.sha256(f"{context.job}\n{context.operator_id}".encode()).hexdigest()[:8]
        self._run = f"-{uuid.uuid4().hex[:8]}" if sink.append else ""
        self._open: tuple[IO[bytes], RecordFile] | None = None
        self._written: list[str] = []  # hidden files of this checkpoint, in order; the last one may be open
        with file_errors(self._folder, "write"):
            self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, batch: Batch) -> None:
        """See SinkWriter."""
        with file_errors(self._folder, "write"):
            _, records = self._open or self._begin()
            records.write(batch.records)
            if records.size >= self._sink.roll_size:
                self._finish()

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """See SinkWriter: the files are closed and on the disk."""
        with file_errors(self._folder, "write"):
            self._finish()
        number = checkpoint_id or _UNCHECKED
        stem = f"part-{self._subtask:05}-{number:08}"
        names = [
            [hidden, f"{stem}-{count:03}-{self._id}{self._run}{self._sink.encoder.suffix}"]
            for count, hidden in enumerate(self._written)
        ]
        self._written = []
        return [[number, *names]]

    def commit(self, committables: Sequence[Any]) -> None:
        """See SinkWriter: a hidden file that is gone was renamed before."""
        with file_errors(self._folder, "write"):
            for _, *names in committables:
                for hidden, final in names:
                    with suppress(FileNotFoundError):
                        (self._folder / hidden).replace(self._folder / final)
            self._sync_folder()

    def recover(self, committables: Sequence[Any]) -> None:
        """See SinkWriter; each subtask looks after the files of those numbers that fall to it."""
        restored = max((committable[0] for committable in committables), default=-1)
        promised = {hidden for _, *names in committables for hidden, _ in names}
        own = re.compile(
            rf"\.{self._id}-(?P<hidden>\d+)-[0-9a-f]+\.inprogress|part-(?P<part>\d+)-(?P<number>\d+)-\d+-{self._id}\b.*"
        )
        with file_errors(self._folder, "write"):
            for name in sorted(path.name for path in self._folder.iterdir()):
                match = own.fullmatch(name)
                if match is None or int(match["hidden"] or match["part"]) % self._parallelism != self._subtask:
                    continue
                came_later = match["number"] is not None and int(match["number"]) > restored and not self._sink.append
                if came_later or (match["hidden"] is not None and name not in promised):
                    (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """See SinkWriter; what is unfinished is removed by the next run."""
        if self._open is not None:
            with suppress(OSError):
                self._open[0].close()
            self._open = None

    def _begin(self) -> tuple[IO[bytes], RecordFile]:
        hidden = f".{self._id}-{self._subtask}-{uuid.uuid4().hex}.inprogress"
        file = (self._folder / hidden).open("xb", buffering=2**17)
        self._written.append(hidden)
        self._open = file, self._sink.encoder.begin(file)
        return self._open

    def _finish(self) -> None:
        if self._open is None:
            return
        file, records = self._open
        records.finish()
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._open = None
        self._sync_folder()

    def _sync_folder(self) -> None:
        """Names survive a loss of power only when their folder is on the disk too."""
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
