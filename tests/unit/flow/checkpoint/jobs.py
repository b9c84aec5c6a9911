"""Jobs for tests: numbers → count by key → a transactional sink in memory, in a home of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.flow.exactly_once_job import KEYS, Numbers, NumbersReader, count

from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.api.job_handle import JobHandle
from sage.core.connectors.base import ReaderContext, Sink, SinkContext, SinkWriter, SourceReader
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.runtime import session
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.sink import SinkOperatorFactory

Record = tuple[int, int]


@dataclass(frozen=True)
class Gated(Numbers):
    """Numbers below `gate[0]`, which the test raises; those above wait."""

    gate: list[int] = field(default_factory=list)

    def reader(self, context: ReaderContext) -> SourceReader[int]:
        return GatedReader(self)


class GatedReader(NumbersReader):
    def __init__(self, source: Gated) -> None:
        super().__init__(source)
        self._gate = source.gate

    def poll(self, limit: int, timeout: float) -> list[int] | None:
        if self._positions and min(self._positions.values()) >= self._gate[0] and not self._is_read:
            time.sleep(0.001)
            return []
        return super().poll(limit, timeout)


@dataclass
class Ledger(Sink[Any]):
    """What was committed, and what is ready to be, outside of any job."""

    committed: list[Any] = field(default_factory=list)
    prepared: dict[str, list[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    exactly_once = True

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        return LedgerWriter(self, context)


class LedgerWriter(SinkWriter[Any]):
    def __init__(self, ledger: Ledger, context: SinkContext) -> None:
        self._ledger = ledger
        self._name = f"{context.run}-{context.operator_id}-{context.subtask}-{time.monotonic_ns()}"
        self._records: list[Any] = []

    def write(self, batch: Batch) -> None:
        self._records += batch.records

    def prepare(self, checkpoint_id: int) -> list[Any]:
        if not self._records:
            return []
        key = f"{self._name}-{checkpoint_id}"
        with self._ledger.lock:
            self._ledger.prepared[key], self._records = self._records, []
        return [key]

    def commit(self, committables: Sequence[Any]) -> None:
        with self._ledger.lock:
            for key in committables:
                self._ledger.committed += self._ledger.prepared.pop(key, [])


@dataclass
class Project:
    """A folder with checkpoints; jobs of one identity run here one after the other."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    numbers: int = 5000
    pause: float = 0.0005
    gate: list[int] = field(default_factory=lambda: [10**9])
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def home(self) -> SageHome:
        return SageHome(self.folder)

    @property
    def checkpoints(self) -> Path:
        (found,) = self.home.checkpoints.iterdir()
        return found

    def start(
        self,
        parallelism: int = 1,
        *,
        restore: str | None = None,
        drop_state: bool = False,
        step: Callable[[Record], Record] | None = None,
        block: bool = False,
        config: dict[str, Any] | None = None,
    ) -> JobHandle:
        """Begin a run; `step` is a map between the source and the key."""
        with session.use(session.Session(home=self.home, restore=restore, drop_state=drop_state)):
            env = LocalEnvironment("counting", {"checkpoint.interval": "20ms"} | self.config | (config or {}))
            source = SourceSpec(SourceKind.CONNECTOR, True, Gated(self.numbers, 8, self.pause, self.gate))
            numbers: Any = env._source(source, "numbers", parallelism, Origin.of_caller())
            pairs = numbers.map(lambda n: (n % KEYS, 1), name="pairs", parallelism=parallelism)
            if step is not None:
                pairs = pairs.map(step, name="step", parallelism=parallelism)
            counts = pairs.key_by(lambda pair: pair[0]).reduce(count, name="count", parallelism=parallelism)
            factory: Any = SinkOperatorFactory(self.ledger)
            counts._operator_sink("ledger", factory, parallelism=parallelism)
            handle: JobHandle = env.submit(block=block)
            return handle

    @property
    def expected(self) -> list[Record]:
        """What an undisturbed run commits, in any order."""
        return sorted((key, n // KEYS + 1) for n in range(self.numbers) for key in (n % KEYS,))

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something that a running job does."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.002)
