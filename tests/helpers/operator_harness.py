"""Runs one subtask of an operator by hand: records, watermarks, the clock, checkpoints and restores. No threads."""

import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from tests.helpers.state_backends import BACKENDS

from sage.core.api.function.base_function import FunctionContext
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import Emitter, Operator, OperatorContext
from sage.core.runtime.timer_heap import TimerHeap
from sage.core.state.base import KeyedStateBackend, SnapshotRequest, StateSnapshot
from sage.core.state.groups import group_range
from sage.core.state.operator_state import OperatorState

Snapshots = list[tuple[pathlib.Path, StateSnapshot, StateSnapshot]]

_numbers = itertools.count(1)


def spec(function: Any, kind: FunctionKind | OperatorKind) -> FunctionSpec:
    """A user's function, as operators get it."""
    return FunctionSpec.checked(function, kind, Origin("test", 1))


class ManualClock:
    """Stands until it is set."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


class OperatorHarness:
    """One operator, opened. `output` has what came out: (record, time); `events` the watermarks and statuses in it."""

    def __init__(
        self,
        factory: Callable[[], Operator],
        keys: Sequence[Callable[[Any], Any] | None] = (None,),
        *,
        subtask: int = 0,
        parallelism: int = 1,
        restored: Snapshots = (),  # type: ignore[assignment]
        clock: ManualClock | None = None,
        job: str = "job",
        state: str = "memory",
    ) -> None:
        self.factory, self.keys = factory, tuple(keys)
        self.subtask, self.parallelism, self.job = subtask, parallelism, job
        self.clock = clock or ManualClock()
        self.state = state
        self.output: list[Any] = []
        self.side: dict[str, list[Any]] = {}
        self.events: list[Any] = []  # records, and ("watermark", time) or ("idle", bool) among them
        self.forwarded: list[int | None] = []
        self._open(list(restored))

    def _open(self, restored: Snapshots) -> None:
        keyed = self._keyed() if any(self.keys) else None
        state = OperatorState()
        if restored:
            if keyed is not None:
                keyed.restore([(folder, snapshot) for folder, snapshot, _ in restored])
            state.restore([(folder, snapshot) for folder, _, snapshot in restored], self.subtask, self.parallelism)
        function = FunctionContext(
            self.job, self.job, "op", "uid", self.subtask, self.parallelism, services=None, keyed=keyed,  # type: ignore[arg-type]
            operator_state=state,
        )  # fmt: skip
        self.context = OperatorContext(
            function=function,
            out=Emitter(),
            clock=self.clock,
            timers=TimerHeap(keyed),
            mailbox=lambda call: call(),
            wait=lambda ready: None,
            operator_state=state,
            keyed=keyed,
            key_selectors=self.keys,
        )
        self.operator = self.factory()
        self.operator.open(self.context)
        self._drain()

    def _keyed(self) -> KeyedStateBackend:
        first, last = group_range(self.subtask, self.parallelism)
        return BACKENDS[self.state](pathlib.Path(tempfile.mkdtemp()), first, last, self.clock)

    def process(self, records: Sequence[Any], times: Sequence[int] | None = None, port: int = 0) -> list[Any]:
        """A batch; what came out."""
        return self._call(
            lambda: self.operator.process(Batch(list(records), None if times is None else list(times)), port)
        )

    def watermark(self, watermark: int) -> list[Any]:
        """Event time comes to `watermark`; what came out."""
        if watermark <= self.context.current_watermark:
            return []
        self.context.current_watermark = watermark

        def advance() -> None:
            self.context.timers.advance(watermark)
            self.forwarded.append(self.operator.on_watermark(watermark))

        return self._call(advance)

    def time(self, now: int) -> list[Any]:
        """The clock comes to `now`; due timers fire, each at its time."""
        before = len(self.output)
        while (due := self.context.timers.next_processing_time) is not None and due <= now:
            self.clock.now = max(self.clock.now, due)
            self._call(lambda: self.context.timers.fire_due(self.clock.now))
        self.clock.now = max(self.clock.now, now)
        return self.output[before:]

    def finish(self) -> list[Any]:
        """The input has ended."""
        return self._call(self.operator.finish)

    def snapshot(self) -> Snapshots:
        """A checkpoint."""
        number = next(_numbers)
        self.operator.snapshot(number)
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "k").mkdir()
        (folder / "o").mkdir()
        operator = self.context.operator_state.snapshot(SnapshotRequest(number, folder / "o", folder))()
        operator.files = [f"../o/{file}" for file in operator.files]
        if self.context.keyed is None:
            return [(folder / "k", StateSnapshot("none", (0, -1)), operator)]
        shared = folder / "shared"
        shared.mkdir()
        return [(folder / "k", self.context.keyed.snapshot(SnapshotRequest(number, folder / "k", shared))(), operator)]

    def restart(self) -> None:
        """A failure right after a checkpoint: everything but the checkpoint is lost, event time begins anew."""
        restored = self.snapshot()
        self.close()
        self._open(restored)

    def close(self) -> None:
        """See Operator."""
        self.operator.close()
        if self.context.keyed is not None:
            self.context.keyed.close()

    def _call(self, call: Callable[[], object]) -> list[Any]:
        before = len(self.output)
        call()
        self._drain()
        return self.output[before:]

    def _drain(self) -> None:
        out = self.context.out
        events, out.events = out.events, []
        batch = out.drain()
        times = batch.timestamps or [NO_WATERMARK] * len(batch.records)
        assert len(times) == len(batch.records)
        self.output += zip(batch.records, times, strict=True)
        start = 0
        for position, event in events:
            self.events += batch.records[start:position]
            start = position
            self.events.append(("idle", event) if isinstance(event, bool) else ("watermark", event))
        self.events += batch.records[start:]
        for tag, records in out.side.items():
            self.side.setdefault(tag, []).extend(records)
        out.side = {}
