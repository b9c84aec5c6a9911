"""A `Sink` as an operator: two-phase commit driven by checkpoints (after Flink's SinkWriterOperator and
CommitterOperator, FLIP-143).

At a barrier the writer closes its transaction and names what there is to commit; that is kept in the state and stored
with the checkpoint. Once the checkpoint is complete it is committed. After a restore everything stored is committed
again (commits are idempotent), shared out over the subtasks there are now; then what earlier runs left open is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.connectors.base import Sink, SinkContext, SinkWriter
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext

__all__ = ["SinkOperator", "SinkOperatorFactory"]

_PENDING = "sink.pending"
_UNION = "union"  # every subtask hears of all, so that none removes what another has still to commit


class SinkOperator(Operator):
    """One subtask of a sink."""

    def __init__(self, make: Callable[[SinkContext], SinkWriter[Any]]) -> None:
        self._make = make
        self._writer: SinkWriter[Any] | None = None
        self._pending: list[tuple[int, Any]] = []  # (checkpoint, committable), in order

    def open(self, context: OperatorContext) -> None:
        """Makes the writer; finishes what a checkpoint promised, then removes leftovers."""
        super().open(context)
        function = context.function
        self._writer = self._make(
            SinkContext(
                job=function.job or function.job_name,
                run=function.job_id,
                operator_id=function.operator_id,
                subtask=function.subtask_index,
                parallelism=function.parallelism,
                clock=context.clock,
            )
        )
        stored = [committable for _, committable in context.operator_state.get(_PENDING, _UNION)]
        share = stored[function.subtask_index :: function.parallelism]
        if share:
            self._writer.commit(share)
        self._writer.recover(stored)
        context.operator_state.put(_PENDING, [], _UNION)

    def process(self, batch: Batch, port: int) -> None:
        """Hands the records to the writer."""
        self.writer.write(batch)

    def flush(self) -> None:
        """The stream pauses."""
        self.writer.flush()

    def snapshot(self, checkpoint_id: int) -> None:
        """The first phase: the transaction's committables go into the checkpoint."""
        self.writer.flush()
        self._pending += [(checkpoint_id, committable) for committable in self.writer.prepare(checkpoint_id)]
        self.context.operator_state.put(_PENDING, [list(entry) for entry in self._pending], _UNION)

    def notify_complete(self, checkpoint_id: int) -> None:
        """The second phase; what belongs to aborted checkpoints before this one is committed with it.

        0 is the end of a job without checkpoints: everything is due, of its savepoints too.
        """
        due = [committable for number, committable in self._pending if number <= checkpoint_id or checkpoint_id == 0]
        if due:
            self.writer.commit(due)
            self._pending = [entry for entry in self._pending if entry[0] > checkpoint_id > 0]

    def close(self) -> None:
        """What was not committed stays uncommitted."""
        if self._writer is not None:
            self._writer.close()

    @property
    def writer(self) -> SinkWriter[Any]:
        """The subtask's writer; exists once the operator is open."""
        assert self._writer is not None, "open() was called"
        return self._writer


@dataclass(slots=True, frozen=True)
class SinkOperatorFactory:
    """Makes the operators of a sink; picklable when the sink is."""

    sink: Sink[Any]

    def __call__(self) -> SinkOperator:
        return SinkOperator(self.sink.writer)
