"""One subtask of an operator, run by hand: no threads, no time but the test's."""

from __future__ import annotations

import inspect
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import FunctionContext
from sage.core.graph.plan import build_plan
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import Emitter, Operator, OperatorContext
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import StateSettings
from sage.core.runtime.timer_heap import TimerHeap
from sage.core.state.base import KeyedStateBackend, SnapshotRequest, StateSnapshot
from sage.core.state.configured import keyed_backend
from sage.core.state.operator_state import OperatorState
from sage.core.testing.clock import ManualClock

__all__ = ["OperatorHarness", "Snapshots"]

Snapshots: TypeAlias = list[tuple[pathlib.Path, StateSnapshot, StateSnapshot]]
"""For each subtask: the folder, the keyed state, the operator state."""

Times: TypeAlias = Sequence[int]


class OperatorHarness:
    """An operator with one or two inputs, opened, with its state, timers and clock in the test's hands.

    `output` has all that came out, as (record, event time or NO_WATERMARK), `side` the side outputs by tag, `events`
    records with the watermarks and statuses that the operator made among them, `forwarded` what it answered to
    watermarks. Calls return what came out of them.

    >>> from sage.core.api import KeyedProcessFunction, ValueStateDescriptor
    >>> class Quiet(KeyedProcessFunction):
    ...     '''Says which keys have been quiet for ten seconds.'''
    ...     def open(self, context):
    ...         self.last = context.get_state(ValueStateDescriptor("last"))
    ...     def process_element(self, value, context, out):
    ...         self.last.update(context.timestamp())
    ...         context.timer_service().register_event_time_timer(context.timestamp() + 10_000)
    ...     def on_timer(self, timestamp, context, out):
    ...         if self.last.value() == timestamp - 10_000:
    ...             out.collect(context.get_current_key())
    >>> harness = OperatorHarness.of(lambda stream: stream.key_by(lambda user: user).process(Quiet()))
    >>> harness.process(["ann", "bob"], [0, 2_000])
    []
    >>> harness.process(["ann"], [5_000])
    []
    >>> harness.restart()                       # a failure: what is in no checkpoint is lost
    >>> harness.watermark(12_000)
    [('bob', 12000)]
    >>> harness.watermark(20_000)
    [('ann', 15000)]
    """

    def __init__(
        self,
        factory: Callable[[], Operator],
        keys: Sequence[Callable[[Any], Any] | None] = (None,),
        *,
        subtask: int = 0,
        parallelism: int = 1,
        restored: Snapshots | None = None,
        clock: ManualClock | None = None,
        job: str = "job",
        state: str = "memory",
        side_outputs: frozenset[str] = frozenset(),
    ) -> None:
        """`keys[port]` selects the keys of an input; `state` names the backend of keyed state."""
        self.factory, self.keys = factory, tuple(keys)
        self.subtask, self.parallelism, self.job, self.state = subtask, parallelism, job, state
        self.clock = clock or ManualClock()
        self.output: list[Any] = []
        self.side: dict[str, list[Any]] = {}
        self.events: list[Any] = []  # records, and ("watermark", time) or ("idle", bool) among them
        self.forwarded: list[int | None] = []
        self._side_outputs = side_outputs
        self._numbers = itertools.count(1)
        self._open(restored or [])

    @classmethod
    def of(cls, build: Callable[..., Any], **options: Any) -> OperatorHarness:
        """The operator that `build(stream)`, or `build(first, second)`, ends in; `options` as for the class.

        Raises PipelineError where that keeps neither state nor time (map, filter, …): call its function instead.
        """
        from sage.core.api.local_environment import LocalEnvironment

        env = LocalEnvironment("harness")
        count = len(inspect.signature(build).parameters)
        node = build(*(env.from_collection([]) for _ in range(count)))._node
        plan = build_plan(env._graph, range(len(env._graph.nodes)), 1, chaining=True)
        operator = next(operator for operator in plan.operators() if operator.node.index == node.index)
        if node.factory is None:
            raise PipelineError(
                f"{node.name!r} is no operator of its own",
                cause=f"a {node.kind} keeps neither state nor time and is fused with its neighbours",
                hint="call its function, or use assert_stream",
            )
        keys = [key.bind(0, 1).call if key is not None else None for key in operator.keys]
        return cls(node.factory, keys, **options)

    def process(self, records: Sequence[Any], times: Times | None = None, port: int = 0) -> list[Any]:
        """A batch for one of the inputs, with event times or without."""
        batch = Batch(list(records), None if times is None else list(times))
        return self._call(lambda: self.operator.process(batch, port))

    def watermark(self, watermark: int) -> list[Any]:
        """Event time (of all inputs together) comes to `watermark`; what comes too late is ignored."""
        if watermark <= self.context.current_watermark:
            return []
        self.context.current_watermark = watermark

        def advance() -> None:
            self.context.timers.advance(watermark)
            self.forwarded.append(self.operator.on_watermark(watermark))

        return self._call(advance)

    def time(self, now: int) -> list[Any]:
        """The clock comes to `now` (ms); timers that are due fire, each at its time."""
        before = len(self.output)
        while (due := self.context.timers.next_processing_time) is not None and due <= now:
            self.clock.now = max(self.clock.now, due)
            self._call(lambda: self.context.timers.fire_due(self.clock.now))
        self.clock.now = max(self.clock.now, now)
        return self.output[before:]

    def finish(self) -> list[Any]:
        """The input has ended (that event time has too is said with `watermark`)."""
        return self._call(self.operator.finish)

    def snapshot(self) -> Snapshots:
        """A checkpoint; give it to `restored` of a new harness, with those of other subtasks."""
        number = next(self._numbers)
        self.operator.snapshot(number)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sage-harness-"))
        (folder / "k").mkdir()
        (folder / "o").mkdir()
        operator = self.context.operator_state.snapshot(SnapshotRequest(number, folder / "o", folder))()
        operator.files = [f"../o/{file}" for file in operator.files]
        keyed = StateSnapshot("none", (0, -1))
        if self.context.keyed is not None:
            keyed = self.context.keyed.snapshot(SnapshotRequest(number, folder / "k", folder))()
        return [(folder / "k", keyed, operator)]

    def restart(self) -> None:
        """A failure right after a checkpoint: everything but the checkpoint is lost, event time begins anew."""
        restored = self.snapshot()
        self.close()
        self._open(restored)

    def close(self) -> None:
        """The end, after a failure too."""
        self.operator.close()
        if self.context.keyed is not None:
            self.context.keyed.close()

    def _open(self, restored: Snapshots) -> None:
        keyed = self._keyed(pathlib.Path(tempfile.mkdtemp(prefix="sage-harness-"))) if any(self.keys) else None
        state = OperatorState()
        if restored:
            if keyed is not None:
                keyed.restore([(folder, snapshot) for folder, snapshot, _ in restored])
            state.restore([(folder, snapshot) for folder, _, snapshot in restored], self.subtask, self.parallelism)
        function = FunctionContext(
            self.job,
            self.job,
            "operator",
            "operator",
            self.subtask,
            self.parallelism,
            services=ServiceRegistry(),
            keyed=keyed,
            operator_state=state,
        )
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
            side_outputs=self._side_outputs,
        )
        self.operator = self.factory()
        self.operator.open(self.context)
        self._drain()

    def _keyed(self, place: pathlib.Path) -> KeyedStateBackend:
        return keyed_backend(StateSettings(self.state), place, self.subtask, self.parallelism, self.clock)

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
