"""A pipeline for the tests that kill: numbers → count by key → files that appear when their checkpoint is complete.

Arguments: `rolling` (every count) or `windows` (counts of event-time windows), the output folder, how many numbers, the
parallelism, the pause after each hundred. `KILL=phase:count` in the environment makes the process kill itself when it
comes to that phase for the count-th time; `CONFIG` is more configuration, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.core.api import LocalEnvironment
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import TumblingEventTimeWindows
from sage.core.checkpoint.restore import RestoredStates
from sage.core.checkpoint.storage import CheckpointStorage
from sage.core.connectors.base import ReaderContext, Sink, SinkContext, SinkWriter, Source, SourceReader, Split
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.runtime.checkpointing import SubtaskCheckpoints
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.sink import SinkOperatorFactory

KEYS = 97


@dataclass(frozen=True)
class Numbers(Source[int]):
    """0 to count - 1, dealt over `parts` splits; a pause after each hundred."""

    count: int
    parts: int
    pause: float

    def splits(self) -> list[Split]:
        return [Split(str(part)) for part in range(self.parts)]

    def reader(self, context: ReaderContext) -> SourceReader[int]:
        return NumbersReader(self)


class NumbersReader(SourceReader[int]):
    def __init__(self, source: Numbers) -> None:
        self._source = source
        self._positions: dict[str, int] = {}

    def add_splits(self, splits: Sequence[Split]) -> None:
        for split in splits:
            self._positions[split.id] = split.position if split.position is not None else int(split.id)

    def poll(self, limit: int, timeout: float) -> list[int] | None:
        if self._is_read:
            return None
        part, start = min(self._positions.items(), key=lambda item: item[1])
        stop = min(start + min(limit, 100) * self._source.parts, self._source.count)
        self._positions[part] = start + -(-(stop - start) // self._source.parts) * self._source.parts
        time.sleep(self._source.pause)
        return list(range(start, stop, self._source.parts))

    @property
    def _is_read(self) -> bool:
        return all(position >= self._source.count for position in self._positions.values())

    def snapshot(self) -> list[Split]:
        return [Split(part, position) for part, position in self._positions.items()]


@dataclass(frozen=True)
class Files(Sink[Any]):
    """Lines into files that are renamed when they are committed."""

    folder: Path
    exactly_once = True

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        return FilesWriter(self.folder, context)


class FilesWriter(SinkWriter[Any]):
    def __init__(self, folder: Path, context: SinkContext) -> None:
        self._folder = folder
        self._name = f"{context.operator_id}-{context.subtask}-{context.run}"
        self._lines: list[str] = []

    def write(self, batch: Batch) -> None:
        self._lines += [f"{record}\n" for record in batch.records]

    def prepare(self, checkpoint_id: int) -> list[Any]:
        lines, self._lines = self._lines, []
        if not lines:
            return []
        name = f"{checkpoint_id:06d}-{self._name}"
        (self._folder / f".{name}.tmp").write_text("".join(lines), encoding="utf-8")
        return [name]

    def commit(self, committables: Sequence[Any]) -> None:
        for name in committables:
            temporary = self._folder / f".{name}.tmp"
            if temporary.exists():
                temporary.replace(self._folder / f"out-{name}")

    def recover(self, committables: Sequence[Any]) -> None:
        """Another subtask's files may wait for its commit: leave them."""


def kill_at(owner: Any, method: str, count: int, *, after: bool = False) -> None:
    """Make the process kill itself at the count-th call of a method."""
    original: Callable[..., Any] = getattr(owner, method)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == count and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, wrapped)


PHASES: dict[str, tuple[Any, str, bool]] = {
    "barrier": (SubtaskCheckpoints, "snapshot", False),
    "snapshot": (SubtaskCheckpoints, "_write", False),
    "snapshotted": (SubtaskCheckpoints, "_write", True),
    "manifest": (CheckpointStorage, "complete", False),
    "complete": (CheckpointStorage, "complete", True),
    "prune": (CheckpointStorage, "prune", False),
    "prepare": (FilesWriter, "prepare", True),
    "commit": (FilesWriter, "commit", False),
    "committed": (FilesWriter, "commit", True),
    "restore": (RestoredStates, "open", True),
    "write": (FilesWriter, "write", False),
}


def count(pair: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return pair[0], pair[1] + other[1]


def main(job: str, folder: str, numbers: int, parallelism: int, pause: float) -> None:
    config = {"checkpoint.interval": "40ms", "checkpoint.timeout": "20s", "parallelism": parallelism}
    env = LocalEnvironment("exactly-once", config=config | json.loads(os.environ.get("CONFIG", "{}")))
    parts = 1 if parallelism == 1 else 8  # one part is read in order, so that the output has an order too
    source = SourceSpec(SourceKind.CONNECTOR, True, Numbers(numbers, parts, pause))
    stream: Any = env._source(source, "numbers", parallelism, Origin.of_caller())
    if job == "windows":
        strategy: Any = WatermarkStrategy.for_bounded_out_of_orderness("1s").with_timestamp_assigner(lambda n: n)
        stream = stream.assign_timestamps_and_watermarks(strategy)
    keyed = stream.map(lambda number: (number % KEYS, 1)).key_by(lambda pair: pair[0])
    if job == "windows":
        keyed = keyed.window(TumblingEventTimeWindows.of("1500ms"))
    counts = keyed.reduce(count)
    counts._operator_sink("files", SinkOperatorFactory(Files(Path(folder))), parallelism=parallelism)
    env.submit()


if __name__ == "__main__":
    wanted = os.environ.get("KILL")
    if wanted:
        phase, _, number = wanted.partition(":")
        owner, method, after = PHASES[phase]
        kill_at(owner, method, int(number), after=after)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
