"""One subtask: takes batches from its input, runs its chain, sends what comes out. Knows no thread and no network.

Batches are processed in slices that take a few milliseconds: a slow function sees one record at a time and its results
go on at once; a quick one sees a thousand, so that nothing but the function itself costs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

from sage.common.errors import PipelineError
from sage.core.graph.plan import TaskPlan
from sage.core.runtime.chain import Chain
from sage.core.runtime.checkpointing import SubtaskCheckpoints
from sage.core.runtime.clock import Clock, SystemClock, when_moved
from sage.core.runtime.events import Barrier, Batch, ControlEvent, EndOfStream, Item, JobAborted, LatencyMarker
from sage.core.runtime.failure import operator_failed
from sage.core.runtime.inputs import TaskInput
from sage.core.runtime.lifecycle import Lifecycle, OpenFunction
from sage.core.runtime.mailbox import Mailbox
from sage.core.runtime.metrics import measure_state
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.output import Output
from sage.core.runtime.task_errors import explained, in_phase
from sage.core.runtime.tracing import TaskTracer

__all__ = ["Task"]

QUICK_S = 0.001  # a slice that takes less is doubled
SLOW_S = 0.004  # one that takes more is cut
_AT_THE_END = 0  # the checkpoint of what is committed at the end of a job without checkpoints


class Task:
    """A subtask. `run` is called once, in the thread (or process) that is to do the work."""

    def __init__(
        self,
        plan: TaskPlan,
        subtask: int,
        *,
        source: TaskInput,
        chain: Chain,
        outputs: list[Output],
        functions: list[OpenFunction],
        slice_limit: int,
        timeout: float,
        aborted: threading.Event,
        preferring: Callable[[int], None],
        mailbox: Mailbox,
        clock: Clock | None = None,
        latency_interval: float | None = None,
        pauses: Callable[[], bool] | None = None,
        checkpoints: SubtaskCheckpoints | None = None,
        was_finished: bool = False,
        tracer: TaskTracer | None = None,
    ) -> None:
        self.plan = plan
        self.subtask = subtask
        self.chain = chain
        self.input = source
        self.mailbox = mailbox
        mailbox.belongs_to(source.wake, self._flush_due)
        self.meter = chain.meter
        self.latencies: deque[float] = deque(maxlen=1024)  # seconds, of the last markers that ended here
        self.checkpoints = checkpoints
        self.tracer = tracer
        self._was_finished = was_finished  # restored from behind its end: it does not end a second time
        self.busy_since: float | None = None  # time.monotonic() when the call that runs now began
        self._expected: Barrier | None = None  # the last checkpoint that was triggered
        self._held: Barrier | None = None  # one that stops the job has been snapshotted: no more input
        self._draining: Barrier | None = None  # one that stops the job waits until what was read is through
        self.is_closed = False  # its state is gone
        self._ended = self._released = False
        self._clock = clock or SystemClock()
        when_moved(self._clock, source.wake)
        self._outputs = outputs
        self._lifecycle = Lifecycle(chain, functions)
        self._bounded = [stage for stage in chain.operator_stages if type(stage.operator).room is not Operator.room]
        self._keyed = [operator.keyed for operator in chain.operators if operator.keyed is not None]
        self._slice = 1
        self._slice_limit = slice_limit
        self._timeout = timeout
        self._aborted = aborted
        self._preferring = preferring
        self._pauses = pauses
        self._flushed_at = time.monotonic()
        self._latency_interval = latency_interval if plan.head.node.source is not None else None
        self._next_marker = inf if self._latency_interval is None else self._flushed_at + self._latency_interval
        self._is_end = any(not (operator.children or operator.outputs) for operator in plan.head.walk())
        self._unflushed = False

    def trigger(self, barrier: Barrier) -> None:
        """A checkpoint begins: at sources here, elsewhere when its barrier comes, or with the end of the input. From
        any thread."""
        self.mailbox.post(partial(self._triggered, barrier))

    def release(self) -> None:
        """Nothing is left to do: end. From any thread."""
        self.mailbox.post(partial(setattr, self, "_released", True))

    def notify_complete(self, checkpoint_id: int) -> None:
        """A checkpoint is complete everywhere; from any thread."""
        if self.checkpoints is not None:
            self.mailbox.post(partial(self.checkpoints.completed, checkpoint_id))
        for stage in self.chain.operator_stages:
            self.mailbox.post(partial(stage.call, partial(stage.operator.notify_complete, checkpoint_id)))

    def notify_aborted(self, checkpoint_id: int) -> None:
        """A checkpoint will not be completed; from any thread."""
        self.mailbox.post(partial(self._resume, checkpoint_id))
        for stage in self.chain.operator_stages:
            self.mailbox.post(partial(stage.call, partial(stage.operator.notify_aborted, checkpoint_id)))

    def run(self) -> PipelineError | None:
        """Work until the input ends. Returns the error that ended it early; None also when the job was aborted."""
        failed: PipelineError | None = None
        try:
            self._lifecycle.open()
            self._work()
        except JobAborted:
            failed = None
        except BaseException as error:  # a user's function may raise anything, SystemExit too
            failed = explained(self.plan.name, self.chain, error)
        return self._close(failed)

    def _work(self) -> None:
        while not (self._released or self._ended):
            if self._held is None:
                self._run_calls()
            else:
                self.mailbox.serve(lambda: self._held is None or self._released, operators=False)
            if self._takes_input:
                self._take_in()

    def _take_in(self) -> None:
        room = min((stage.operator.room for stage in self._bounded), default=self._slice)
        if room <= 0:
            self._wait_for_room()
            return
        taken = self._take(min(room, self._slice), self._patience())
        if taken is None:
            self._flush()
            return
        port, item = taken
        if isinstance(item, Batch):
            self._process(item, port)
            if self._pauses is not None and self._pauses():
                self._pass_on()
        elif isinstance(item, EndOfStream) and self._draining is not None:
            self._barrier(self._draining)
        else:
            self._control(item)
            self._write_state()
            if isinstance(item, EndOfStream):
                self._conclude()

    @property
    def _takes_input(self) -> bool:
        return self._held is None and not self._released

    def _run_calls(self) -> None:
        """What other threads posted, and processing timers that are due."""
        ran = self.mailbox.run(self._is_held)
        if self._is_held():
            return
        due = self.chain.next_due
        if due is not None and due <= (now := self._clock.now_ms()):
            self.chain.fire_due(now)
            ran = True
        if ran:
            self._flush_due()

    def _is_held(self) -> bool:
        return self._held is not None

    def _pass_on(self) -> None:
        """Nothing waits behind this batch. Its records have waited for `buffer.timeout` at their source: not again."""
        for output in self._outputs:
            output.flush()

    def _flush_due(self) -> None:
        for output in self._outputs:
            output.flush_if_due()

    def _patience(self) -> float | None:
        """How long to wait for input: until something buffered must be sent or a timer is due; None: for ever."""
        due = self.chain.next_due
        until_timer = None if due is None else max(0.0, (due - self._clock.now_ms()) / 1000)
        flushed = [output.flushed_at for output in self._outputs if output.buffer]
        if self._unflushed:
            flushed.append(self._flushed_at)
        if not flushed:
            return until_timer
        until_flush = max(0.0, min(flushed) + self._timeout - time.monotonic())
        return until_flush if until_timer is None else min(until_flush, until_timer)

    def _wait_for_room(self) -> None:
        """An operator takes no more records now; calls of other threads, barriers too, go on."""
        patience = self._patience()
        if not self.mailbox.sleep(inf if patience is None else patience):
            self._flush()

    def _take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        started = self.meter.taking_since = time.perf_counter()
        try:
            return self.input.take(limit, timeout)
        except JobAborted:
            raise
        except BaseException as error:
            node = self.plan.head.node
            self.chain.operators[0].errors += 1
            raise operator_failed(node.name, error, node.origin, phase="the source") from error
        finally:
            self.meter.taking_since = 0.0
            self.meter.idle_s += time.perf_counter() - started

    def _process(self, batch: Batch, port: int) -> None:
        if self.tracer is None:
            self._process_slices(batch, port)
            return
        for part, traced in self.tracer.cut(batch):
            if traced:
                self.busy_since = time.monotonic()
                self.tracer.run(part, partial(self.chain.run, part, port))
                self.busy_since = None
                self._unflushed = True
            else:
                self._process_slices(part, port)

    def _process_slices(self, batch: Batch, port: int) -> None:
        position, count = 0, len(batch.records)
        while position < count:
            if self._aborted.is_set():
                raise JobAborted
            whole = position == 0 and count <= self._slice
            part = batch if whole else batch.cut(position, position + self._slice)
            started = self.busy_since = time.monotonic()
            self.chain.run(part, port)
            self._write_state()
            self._flush_due()
            self.busy_since = None
            ended = time.monotonic()
            self._unflushed = self._lifecycle.holds_back
            if self._unflushed and ended - self._flushed_at >= self._timeout:
                self._flush()
            self._adapt(len(part.records), ended - started)
            if ended >= self._next_marker:
                self._mark(ended)
            position += len(part.records)

    def _write_state(self) -> None:
        """A bounded part of what is dirty in state on disk."""
        for keyed in self._keyed:
            keyed.flush_slice()

    def _mark(self, now: float) -> None:
        """Send a latency marker behind the records so far."""
        assert self._latency_interval is not None, "only then is there a next one"
        self._next_marker = now + self._latency_interval
        self._control(LatencyMarker(time.time(), self.plan.head.node.name, self.subtask))

    def _adapt(self, size: int, seconds: float) -> None:
        """Slices that take between QUICK_S and SLOW_S; time spent waiting for receivers counts."""
        if seconds < QUICK_S and size >= self._slice:
            self._slice = min(self._slice_limit, self._slice * 2)
        elif seconds > SLOW_S:
            self._slice = max(1, min(self._slice, int(size * QUICK_S / seconds)))
        self._preferring(self._slice)

    def _control(self, event: ControlEvent) -> None:
        if isinstance(event, Barrier):
            self._barrier(event)
        elif isinstance(event, EndOfStream):
            self.chain.end(event.drained and not self._was_finished)
            self._flush()
            for output in self._outputs:
                output.event(event)
        else:
            if isinstance(event, LatencyMarker) and self._is_end:
                self.latencies.append(time.time() - event.created)
            self.chain.event(event)
            self._flush()

    def _barrier(self, barrier: Barrier) -> None:
        """The barrier goes on before the snapshot is made, so that those behind begin with theirs."""
        if self.checkpoints is not None and not self.checkpoints.begins(barrier):
            return
        self.chain.prepare_snapshot(barrier.checkpoint_id)
        for output in self._outputs:
            if barrier.unaligned:
                output.overtake(barrier)
            else:
                output.event(barrier)
        self._flush()
        if barrier.kind.stops:
            self._held, self._draining = barrier, None
        if self.checkpoints is not None:
            self.checkpoints.snapshot(barrier)

    def _triggered(self, barrier: Barrier) -> None:
        self._expected = barrier
        if self._ended:
            self._late_snapshot(barrier)
        elif self.plan.head.node.source is not None:
            if barrier.kind.stops and not getattr(self.input, "can_replay", True):
                self._draining = barrier
                self.input.stop_reading()  # type: ignore[attr-defined]
            else:
                self._barrier(barrier)

    def _late_snapshot(self, barrier: Barrier) -> None:
        """The input has ended, so nothing can come between any barrier and this snapshot."""
        if self.checkpoints is not None and self.checkpoints.begins(barrier):
            self.checkpoints.snapshot(barrier, finished=True)

    def _resume(self, checkpoint_id: int) -> None:
        """A checkpoint has failed: nothing waits for it; one that was to stop the job does not."""
        if self.checkpoints is not None:
            self.checkpoints.aborted(checkpoint_id)
        if self._held is not None and self._held.checkpoint_id == checkpoint_id:
            self._held = None
        if self._draining is not None and self._draining.checkpoint_id == checkpoint_id:
            self._draining = None  # what was read is all that this source gives: its end is the stream's

    def _conclude(self) -> None:
        """All input is processed. With checkpoints, the last one makes everything final; without, it is final now."""
        self._ended = True
        if self.checkpoints is not None:
            self.checkpoints.access.ended(self.plan.index, self.subtask)
            if self._expected is not None:
                self._late_snapshot(self._expected)
        if self.checkpoints is None or not self.checkpoints.access.periodic:
            for stage in self.chain.operator_stages:
                stage.operator.snapshot(_AT_THE_END)
                stage.call(partial(stage.operator.notify_complete, _AT_THE_END))
            return
        self.mailbox.serve(lambda: self._released)

    def _flush(self) -> None:
        self._lifecycle.flush_operators()
        for output in self._outputs:
            output.flush()
        self._lifecycle.flush_sinks()
        self._flushed_at = time.monotonic()
        self._unflushed = False

    def _close(self, failed: PipelineError | None) -> PipelineError | None:
        """Close the input, every function that was opened, and the state; the first error counts."""
        try:
            self.input.close()
        except BaseException as error:  # a connector's reader may raise anything
            failed = failed or in_phase(self.plan.head, error, "close")
        closed = self._lifecycle.close()
        failed = failed or closed
        for operator in self.chain.operators:
            measure_state(operator, now=True)
        self.is_closed = True
        closed = self._lifecycle.close_state()
        return failed or closed
