"""Runs readers and writers of connectors by hand, with a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sage.core.connectors.base import (
    BadRecord,
    ReaderContext,
    Sink,
    SinkContext,
    SinkWriter,
    Source,
    SourceReader,
    Split,
)
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.source import splits_of


class ManualClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


def refuse(record: object, error: Exception) -> None:
    raise error


def context(
    subtask: int = 0, parallelism: int = 1, *, clock: ManualClock | None = None, bad_record: BadRecord = refuse
) -> ReaderContext:
    return ReaderContext(subtask, parallelism, clock or ManualClock(), lambda: False, lambda: None, bad_record)


def reader(
    source: Source[Any], stored: Sequence[Split] | None = None, made_for: ReaderContext | None = None
) -> SourceReader[Any]:
    """A reader of the subtask's share, as the runtime makes it."""
    made_for = made_for or context()
    made = source.reader(made_for)
    every = source.splits() if stored is None else source.resume(stored)
    made.add_splits(splits_of(made_for.subtask, made_for.parallelism, every))
    return made


def read(made: SourceReader[Any], count: int | None = None, limit: int = 7) -> list[Any]:
    """Up to `count` records (None: until the end), by polls of at most `limit`; waits at most 20 s."""
    records: list[Any] = []
    deadline = time.monotonic() + 20
    while count is None or len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} records came"
        taken = made.poll(limit if count is None else min(limit, count - len(records)), 0.02)
        if taken is None:
            break
        records += taken.records if isinstance(taken, Batch) else taken
    return records


def everything(source: Source[Any], limit: int = 3, bad_record: BadRecord = refuse) -> list[Any]:
    """All records of a bounded source."""
    made = reader(source, None, context(bad_record=bad_record))
    try:
        return read(made, limit=limit)
    finally:
        made.close()


def writer(sink: Sink[Any], subtask: int = 0, parallelism: int = 1, job: str = "job") -> SinkWriter[Any]:
    """A writer that has not recovered yet."""
    return sink.writer(SinkContext(job, "run", "operator", subtask, parallelism, ManualClock()))


def started(sink: Sink[Any], stored: Sequence[Any] = (), subtask: int = 0, parallelism: int = 1) -> SinkWriter[Any]:
    """A writer as the runtime starts it with what a checkpoint holds."""
    made = writer(sink, subtask, parallelism)
    share = list(stored)[subtask::parallelism]
    if share:
        made.commit(share)
    made.recover(list(stored))
    return made


def put(made: SinkWriter[Any], *records: Any) -> None:
    made.write(Batch(list(records)))


def visible(folder: Path) -> list[str]:
    """The lines of all files that are not hidden, in the order of their names."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
