"""The operators of one subtask: a tree of stages, built from the plan, and driven by its task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import CodeType, FrameType, TracebackType
from typing import Any

from sage.core.graph.origin import is_ours
from sage.core.runtime.codegen import Member
from sage.core.runtime.events import Batch, ControlEvent, JobAborted
from sage.core.runtime.failure import OnError, RecordFailure
from sage.core.runtime.loop import LoopStage
from sage.core.runtime.mailbox import Mailbox
from sage.core.runtime.meter import Meter
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.functions import select_keys
from sage.core.runtime.output import KeySelectionFailed, Output, Target
from sage.core.runtime.stages import ChainOperator, OperatorStage, Stage, StageLink, Tolerate

__all__ = ["Chain", "ChainOperator", "Failure"]


@dataclass(slots=True, frozen=True)
class Failure:
    """Which operator (or its key selector) raised, and at which record, where that is known."""

    stage: Stage
    operator: ChainOperator
    in_key: bool
    record: Any
    timestamp: int | None
    at_record: bool = True
    port: int = 0


class Chain:
    """The operators below and including `head`. `outputs` are the edges that leave the task, by number.

    `copies`: operators are handed copies of records. With `on_error`, a record at which a function raises goes there.
    """

    def __init__(
        self,
        head: ChainOperator,
        outputs: dict[int, Output],
        limit: int,
        meter: Meter,
        mailbox: Mailbox,
        *,
        subtask: int = 0,
        copies: bool = False,
        on_error: OnError | None = None,
    ) -> None:
        self.operators = list(head.walk())
        self.meter = meter
        self._mailbox = mailbox
        self._limit = limit
        self._outputs = outputs
        self._subtask = subtask
        self._copies = copies
        self._on_error = on_error
        self.head = self._stage(head)
        self.stages = list(_walk(self.head))
        self.operator_stages = [stage for stage in self.stages if isinstance(stage, OperatorStage)]

    def run(self, batch: Batch, port: int = 0) -> None:
        """Take the records through the chain, in order; raises what the functions raise."""
        self.head.process(batch, port)

    def event(self, event: ControlEvent) -> None:
        """A watermark, status or latency marker, from the head down to the outputs."""
        self.head.event(event)

    def end(self, drained: bool) -> None:
        """The input has ended: event time too when `drained`, then each stage finishes, in order."""
        self.head.end(drained)

    def prepare_snapshot(self, checkpoint_id: int) -> None:
        """Emit what has to be in front of the barrier."""
        for stage in self.operator_stages:
            stage.operator.prepare_snapshot(checkpoint_id)
            stage.drain()

    def fire_due(self, now_ms: int) -> None:
        """Fire the processing timers that are due."""
        for stage in self.operator_stages:
            due = stage.context.timers.next_processing_time
            if due is not None and due <= now_ms:
                stage.call(lambda stage=stage: stage.context.timers.fire_due(now_ms))  # type: ignore[misc]

    @property
    def next_due(self) -> int | None:
        """When the earliest processing timer is due (ms since the epoch)."""
        times = [stage.context.timers.next_processing_time for stage in self.operator_stages]
        return min((time for time in times if time is not None), default=None)

    def failure(self, trace: TracebackType | None) -> Failure | None:
        """Where in the chain a traceback comes from; None when it is not from here. Counts it as an error."""
        found = self._find(trace)
        if found is not None:
            found.operator.errors += 1
            if isinstance(found.stage, LoopStage):
                found.stage.failed(found.operator)
        return found

    def operator_in(self, frame: FrameType) -> ChainOperator | None:
        """The operator that a frame, of a thread that runs now, belongs to; not one that it only calls."""
        looped = self._in_loop(frame.f_code, frame.f_lineno or 0)
        if looped is not None:
            return looped[0].operators[looped[1]]
        if frame.f_code in _STAGE_CODE:
            stage: OperatorStage = frame.f_locals["self"]
            return stage.operators[0]
        return None

    def operator_at(self, trace: TracebackType | None) -> ChainOperator | None:
        """The operator whose function a traceback comes from."""
        found = self._find(trace)
        return found.operator if found is not None else None

    def _find(self, trace: TracebackType | None) -> Failure | None:
        """The deepest operator on the traceback, and the record that it was at."""
        found: Failure | None = None
        while trace is not None:
            frame = trace.tb_frame
            looped = self._in_loop(frame.f_code, trace.tb_lineno)
            if looped is not None:
                stage, index, in_key, name = looped
                record, time = frame.f_locals.get(name), frame.f_locals.get("time")
                found = Failure(stage, stage.operators[index], in_key, record, time)
            elif frame.f_code in _STAGE_CODE:
                stage = frame.f_locals["self"]
                port = frame.f_locals.get("port", 0)
                found = Failure(stage, stage.operators[0], False, None, None, at_record=False, port=port)
            elif found is not None and isinstance(found.stage, OperatorStage):
                found = _with_record(found, frame)
            trace = trace.tb_next
        return found

    def _tolerated(self, stage: Stage, error: Exception, batch: Batch | None) -> bool:
        """Tell `on_error` of a record at which a function of this very stage raised."""
        if self._on_error is None or isinstance(error, (JobAborted, KeySelectionFailed)):
            return False
        found = self._find(error.__traceback__)
        if found is None or found.stage is not stage:
            return False
        if batch is not None:
            time = batch.timestamps[0] if batch.timestamps is not None else None
            found = replace(found, record=batch.records[0], timestamp=time)
        self.failure(error.__traceback__)
        node = found.operator.plan.node
        self._on_error(RecordFailure(node.name, node.uid, self._subtask, found.record, found.timestamp, error))
        return True

    def _in_loop(self, code: CodeType, line: int) -> tuple[LoopStage, int, bool, str] | None:
        for stage in self.stages:
            if isinstance(stage, LoopStage):
                for loop in stage.loops.values():
                    if code is loop.function.__code__ and line in loop.lines:
                        return (stage, *loop.lines[line])
        return None

    def _stage(self, operator: ChainOperator) -> Stage:
        if operator.operator is not None:
            return self._operator_stage(operator)
        members: list[Member] = []
        targets: list[Target] = []
        self._member(operator, members, targets)
        return LoopStage(members, targets, self.meter, limit=self._limit, copies=self._copies, tolerate=self._tolerance)

    @property
    def _tolerance(self) -> Tolerate | None:
        return None if self._on_error is None else self._tolerated

    def _operator_stage(self, operator: ChainOperator) -> OperatorStage:
        main: list[Target] = []
        sides: dict[str, list[Target]] = {}
        for tag, target in self._targets(operator):
            (main if tag is None else sides.setdefault(tag, [])).append(target)
        return OperatorStage(
            operator, main, sides, self.meter, self._mailbox, copies=self._copies, tolerate=self._tolerance
        )

    def _targets(self, operator: ChainOperator) -> Iterator[tuple[str | None, Target]]:
        for number in operator.plan.outputs:
            yield self._outputs[number].tag, self._outputs[number]
        for child in operator.children:
            yield child.plan.tag, StageLink(self._stage(child))

    def _member(self, operator: ChainOperator, members: list[Member], targets: list[Target]) -> Member:
        member = Member(len(members), operator)
        members.append(member)
        for number in operator.plan.outputs:
            member.targets.append(len(targets))
            targets.append(self._outputs[number])
        for child in operator.children:
            if child.operator is None:
                member.children.append(self._member(child, members, targets))
            else:
                member.targets.append(len(targets))
                targets.append(StageLink(self._stage(child)))
        return member


_STAGE_CODE = frozenset(
    getattr(OperatorStage, name).__code__ for name in ("process", "_process_each", "event", "end", "call", "_advance")
)


def _walk(stage: Stage) -> Iterator[Stage]:
    yield stage
    for below in stage.below():
        yield from _walk(below)


def _with_record(found: Failure, frame: FrameType) -> Failure:
    """Operators that call user functions keep the record at hand in a local variable named `record`."""
    own = is_ours(frame.f_code.co_filename) or isinstance(frame.f_locals.get("self"), Operator)
    if own and "record" in frame.f_locals:
        in_key, time = frame.f_code is select_keys.__code__, frame.f_locals.get("time")
        return replace(found, record=frame.f_locals["record"], timestamp=time, at_record=True, in_key=in_key)
    return found
