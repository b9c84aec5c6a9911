"""The stage of stateless neighbours: runs their generated loop and keeps their counts."""

from __future__ import annotations

from typing import Any

from sage.core.runtime.codegen import COUNTED, Loop, Member, namespace
from sage.core.runtime.events import Batch, ControlEvent, Watermark
from sage.core.runtime.meter import Meter
from sage.core.runtime.output import Target
from sage.core.runtime.stages import ChainOperator, Stage, StageLink

__all__ = ["LoopStage"]


class LoopStage(Stage):
    """`members[0]` is the head; `targets` has what members' target numbers mean."""

    def __init__(self, members: list[Member], targets: list[Target], limit: int, meter: Meter) -> None:
        self.operators: list[ChainOperator] = [member.operator for member in members]
        self.targets = targets
        self._members = members
        self._links = [target for target in targets if isinstance(target, StageLink)]
        self._counts = [0] * len(members)
        self._times = [0.0] * len(members)
        self._names = namespace(members, targets, self._counts, self._times, limit)
        self._meter = meter
        self.loops: dict[tuple[bool, bool], Loop] = {}
        for clocked in (False, True):  # most streams have no event time
            self._loop(timed=False, clocked=clocked)

    def process(self, batch: Batch, port: int) -> None:
        """A clock stands around each operator for the first record; its shares of the time stand for the batch."""
        times = batch.timestamps
        timed = times is not None
        for target in self.targets:
            if target.timed is not timed:
                target.begin(timed)
        entered = self._meter.enter()
        try:
            self._run(self._loop(timed=timed, clocked=True), batch.records[:1], None if times is None else times[:1])
            if len(batch.records) > 1:
                rest = None if times is None else times[1:]
                self._run(self._loop(timed=timed, clocked=False), batch.records[1:], rest)
        finally:
            self._share(self._meter.leave(entered))
        for link in self._links:
            link.flush()

    def event(self, event: ControlEvent) -> None:
        if isinstance(event, Watermark):
            for operator in self.operators:
                operator.watermark = event.timestamp
        self.forward(event)

    def end(self, drained: bool) -> None:
        for stage in self.below():
            stage.end(drained)

    def failed(self, index: int) -> None:
        """The member raised at a record: it did not come to those behind it."""
        _uncount_rest(self._members[0], index)

    def _loop(self, *, timed: bool, clocked: bool) -> Loop:
        loop = self.loops.get((timed, clocked))
        if loop is None:
            loop = self.loops[timed, clocked] = Loop(self._members, self._names, timed=timed, clocked=clocked)
        return loop

    def _run(self, loop: Loop, batch: list[Any], timestamps: list[int] | None) -> None:
        records: Any = iter(batch)
        try:
            loop.function(records, timestamps)
        finally:
            self._account(len(batch) - records.__length_hint__())

    def _share(self, elapsed: float) -> None:
        total = sum(self._times)
        for index, operator in enumerate(self.operators):
            operator.busy_s += elapsed * self._times[index] / total if total else 0.0
            self._times[index] = 0.0

    def _account(self, taken: int) -> None:
        """Turn the counts of the operators that change how many records there are into counts for all."""
        entered = [0] * len(self._members)
        entered[0] = taken
        for member in self._members:
            index, operator = member.index, member.operator
            operator.records_in += entered[index]
            left = self._counts[index] if operator.kind in COUNTED else entered[index]
            operator.records_out += left
            self._counts[index] = 0
            for child in member.children:
                entered[child.index] = left


def _uncount_rest(member: Member, failed: int) -> bool:
    """Take the failed record out of the counts of the operators that it did not come to; True once `failed` is met."""
    if member.index == failed:
        _uncount_output(member)
        return True
    met = False
    for child in member.children:
        if met:
            child.operator.records_in -= 1
            _uncount_output(child)
        else:
            met = _uncount_rest(child, failed)
    return met


def _uncount_output(member: Member) -> None:
    if member.operator.kind in COUNTED:
        return
    member.operator.records_out -= 1
    for child in member.children:
        child.operator.records_in -= 1
        _uncount_output(child)
