"""The stage of stateless neighbours: runs their generated loop and keeps their counts."""

from __future__ import annotations

from typing import Any

from sage.core.graph.spec import OperatorKind
from sage.core.runtime.codegen import COUNTED, Loop, Member, Version, namespace
from sage.core.runtime.events import Batch, ControlEvent, Watermark
from sage.core.runtime.meter import Meter
from sage.core.runtime.output import Target
from sage.core.runtime.stages import ChainOperator, Stage, StageLink, Tolerate
from sage.core.state.base import StateTable

__all__ = ["LoopStage"]


class LoopStage(Stage):
    """`members[0]` is the head; `targets` has what members' target numbers mean.

    With `tolerate`, a record at which a function raised is left out, after `tolerate(error)`; what it had put out
    before stays.
    """

    def __init__(
        self,
        members: list[Member],
        targets: list[Target],
        meter: Meter,
        *,
        limit: int,
        copies: bool = False,
        tolerate: Tolerate | None = None,
    ) -> None:
        self.operators: list[ChainOperator] = [member.operator for member in members]
        self.targets = targets
        self._members = members
        self._links = [target for target in targets if isinstance(target, StageLink)]
        self._counts = [0] * len(members)
        self._times = [0.0] * len(members)
        self._tables = _tables(members)
        self._names = namespace(
            members, targets, self._counts, self._times, limit=limit, tables=self._tables, copies=copies
        )
        self._meter = meter
        self._tolerate = tolerate
        self._passes = _passes(members, targets) and not copies
        self.loops: dict[Version, Loop] = {}
        for clocked in (False, True):  # most streams have no event time
            self._loop(Version(timed=False, clocked=clocked, direct=self._direct))

    def process(self, batch: Batch, port: int) -> None:
        """A clock stands around each operator for the first record; its shares of the time stand for the batch."""
        if self._passes:
            self._account(len(batch.records))
            self.targets[0].send(batch)
            return
        timed = batch.timestamps is not None
        for target in self.targets:
            if target.timed is not timed:
                target.begin(timed)
        direct = self._direct
        entered = self._meter.enter()
        try:
            self._run(Version(timed, True, direct), batch.cut(0, 1))
            if len(batch.records) > 1:
                self._run(Version(timed, False, direct), batch.cut(1))
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

    def failed(self, operator: ChainOperator) -> None:
        """The operator raised at a record: it did not come to those behind it."""
        _uncount_rest(self._members[0], self.operators.index(operator))

    @property
    def _direct(self) -> bool:
        """Whether every table lets the loop work in its dict now."""
        return all(getattr(table, "direct", None) is not None for table in self._tables.values())

    def _loop(self, version: Version) -> Loop:
        loop = self.loops.get(version)
        if loop is None:
            loop = self.loops[version] = Loop(self._members, self._names, version)
        return loop

    def _run(self, version: Version, batch: Batch) -> None:
        loop = self._loop(version)
        records: Any = iter(batch.records)
        timestamps = None if batch.timestamps is None else iter(batch.timestamps)
        left = len(batch.records)
        while True:
            try:
                loop.function(records, timestamps)
                return
            except Exception as error:
                if self._tolerate is None or not self._tolerate(self, error, None):
                    raise
            finally:
                taken, left = left - records.__length_hint__(), records.__length_hint__()
                self._account(taken)

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


def _passes(members: list[Member], targets: list[Target]) -> bool:
    """Whether batches go on to one stage as they are: a source or union in front of an operator."""
    alone = len(members) == 1 and members[0].operator.kind in (OperatorKind.SOURCE, OperatorKind.UNION)
    return alone and len(targets) == 1 and isinstance(targets[0], StageLink)


def _tables(members: list[Member]) -> dict[int, StateTable]:
    """The state of the members that reduce, by their numbers."""
    tables = {}
    for member in members:
        if member.operator.kind is OperatorKind.REDUCE:
            assert member.operator.keyed is not None, "reduce has keyed state"
            tables[member.index] = member.operator.keyed.table("reduce", "reduce")
    return tables


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
