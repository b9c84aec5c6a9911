"""Makes the subtasks of a plan and joins them with in-process channels."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from sage.common.errors import PipelineError, StateError
from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.api.function.service_calls import ServiceProvider
from sage.core.checkpoint.in_flight import deal
from sage.core.connectors.base import ReaderContext
from sage.core.graph.logical import LogicalNode
from sage.core.graph.plan import PhysicalEdge, PhysicalOperator, PhysicalPlan, TaskPlan
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.graph.spec import BoundFunction, FunctionSpec, OperatorKind, Partitioning
from sage.core.runtime.chain import Chain, ChainOperator
from sage.core.runtime.channel import InputGate
from sage.core.runtime.checkpointing import CheckpointAccess, SubtaskCheckpoints
from sage.core.runtime.clock import Clock, SystemClock
from sage.core.runtime.events import Batch, Item
from sage.core.runtime.failure import OnError, RecordFailure
from sage.core.runtime.feedback import FeedbackFactory, FeedbackInput, FeedbackLoops, FeedbackOperator
from sage.core.runtime.inputs import CollectionInput, ReaderInput, RecordCount, calls
from sage.core.runtime.mailbox import Mailbox
from sage.core.runtime.meter import Meter
from sage.core.runtime.operators.base import Emitter, OperatorContext
from sage.core.runtime.operators.source import BadRecords, SplitInput
from sage.core.runtime.output import Output
from sage.core.runtime.partition import KeyPartitioner
from sage.core.runtime.settings import CheckpointMode, RestartKind, RuntimeSettings
from sage.core.runtime.states import MemoryStates, OperatorStates, StateProvider
from sage.core.runtime.task import OpenFunction, Task
from sage.core.runtime.timer_heap import TimerHeap

__all__ = ["JobContext", "wire"]

_SLICES = 4  # how many full buffers a task may take from its source at once, where that is quick

SourceInput: TypeAlias = FeedbackInput | CollectionInput | ReaderInput | SplitInput


@dataclass(slots=True, frozen=True)
class JobContext:
    """What all tasks of a job share."""

    job_id: str
    name: str
    settings: RuntimeSettings
    services: ServiceProvider
    stopping: threading.Event
    aborted: threading.Event
    clock: Clock = field(default_factory=SystemClock)
    on_error: OnError | None = None
    states: StateProvider = field(default_factory=MemoryStates)
    identity: str = ""
    attempt: int = 0  # how often the job has started again in this process
    checkpoints: CheckpointAccess | None = None
    owner: object = None  # kept alive, and with it the services, while the job runs


def wire(plan: PhysicalPlan, job: JobContext) -> tuple[list[Task], list[InputGate]]:
    """All subtasks of the plan, in topological order, and the gates between them."""
    gates = _gates(plan, job)
    loops = FeedbackLoops()
    tasks = [
        _Subtask(plan, task, number, gates, job, loops).build()
        for task in plan.tasks
        for number in range(task.parallelism)
    ]
    return tasks, list(gates.values())


def _gates(plan: PhysicalPlan, job: JobContext) -> dict[tuple[int, int], InputGate]:
    gates: dict[tuple[int, int], InputGate] = {}
    for task in plan.tasks:
        incoming = [edge for edge in plan.edges if edge.target == task.index]
        if incoming:
            ports = [edge.port for edge in incoming for _ in range(_senders(plan, edge))]
            settings = job.settings.checkpoint
            for number in range(task.parallelism):
                gates[task.index, number] = InputGate(
                    ports,
                    job.settings.channel_capacity,
                    job.aborted,
                    exactly_once=settings.mode is not CheckpointMode.AT_LEAST_ONCE,
                    alignment_timeout=settings.alignment_timeout,
                )
            _restore_in_flight(plan, task, gates, job)
    return gates


def _restore_in_flight(
    plan: PhysicalPlan, task: TaskPlan, gates: dict[tuple[int, int], InputGate], job: JobContext
) -> None:
    """Give the gates of a task what was on its way to them when the checkpoint was made."""
    parts = job.states.in_flight(task.head.node.uid)
    if not any(parts):
        return
    incoming = [edge for edge in plan.edges if edge.target == task.index]
    waiting = {port for part in parts for port, _ in part}
    copied = {edge.port for edge in incoming if edge.partitioning is Partitioning.BROADCAST}
    if len(parts) != task.parallelism and waiting & copied:
        raise StateError(
            f"{task.name!r} cannot go on with {task.parallelism} subtasks from this checkpoint of {len(parts)}",
            cause="it is an unaligned one, and records were on their way to a broadcast input",
            hint="restore it with the parallelism of before, or take a savepoint to change it",
        )
    keys = {edge.port: edge.key for edge in incoming if edge.key is not None}
    partitioners = {
        port: KeyPartitioner(key.bind(0, 1).call, task.parallelism)
        for port, key in keys.items()
        if task.parallelism > 1
    }
    for number in range(task.parallelism):

        def share(port: int, batch: Batch, number: int = number) -> Batch | None:
            partitioner = partitioners.get(port)
            return partitioner.split(batch)[number] if partitioner is not None else None

        gates[task.index, number].restore(deal(parts, number, task.parallelism, share))


def _senders(plan: PhysicalPlan, edge: PhysicalEdge) -> int:
    """How many channels an edge brings to each receiving subtask."""
    return 1 if edge.partitioning is Partitioning.FORWARD else plan.tasks[edge.source].parallelism


def _first_channel(plan: PhysicalPlan, edge: PhysicalEdge) -> int:
    """The number of the edge's first channel at its receivers."""
    return sum(_senders(plan, e) for e in plan.edges if e.target == edge.target and e.index < edge.index)


class _Subtask:
    """Builds one subtask."""

    def __init__(
        self,
        plan: PhysicalPlan,
        task: TaskPlan,
        number: int,
        gates: dict[tuple[int, int], InputGate],
        job: JobContext,
        loops: FeedbackLoops,
    ) -> None:
        self._loops = loops
        self._plan = plan
        self._task = task
        self._number = number
        self._gates = gates
        self._job = job
        self._functions: list[OpenFunction] = []
        self._edges: dict[int, Output] = {}
        self._meter = Meter()
        self._mailbox = Mailbox(job.aborted)

    def build(self) -> Task:
        settings = self._job.settings
        head = self._operator(self._task.head)
        source = self._input(head)
        chain = Chain(
            head,
            self._edges,
            settings.buffer_size,
            self._meter,
            self._mailbox,
            subtask=self._number,
            copies=not settings.object_reuse,
            on_error=self._job.on_error,
        )
        gate = self._gates.get((self._task.index, self._number))
        return Task(
            self._task,
            self._number,
            source=source,
            chain=chain,
            outputs=list(self._edges.values()),
            functions=self._functions,
            slice_limit=_SLICES * settings.buffer_size,
            timeout=settings.buffer_timeout,
            aborted=self._job.aborted,
            preferring=partial(setattr, gate, "preferred") if gate is not None else _nobody,
            mailbox=self._mailbox,
            clock=self._job.clock,
            latency_interval=settings.latency_interval,
            pauses=gate.is_empty if gate is not None else None,
            checkpoints=self._checkpoints(chain, source),
            was_finished=self._job.states.finished(self._task.head.node.uid),
        )

    def _checkpoints(self, chain: Chain, source: GateInput | SourceInput) -> SubtaskCheckpoints | None:
        access = self._job.checkpoints
        if access is None:
            return None
        position = None if isinstance(source, GateInput) else source
        gate = source if isinstance(source, FeedbackInput) else self._gates.get((self._task.index, self._number))
        return SubtaskCheckpoints(self._task.index, self._number, chain.operators, access, position, gate)

    def _input(self, head: ChainOperator) -> GateInput | SourceInput:
        gate = self._gates.get((self._task.index, self._number))
        source = self._task.head.node.source
        if source is None:
            assert gate is not None, "a task without a source has an input"
            return GateInput(gate)
        assert head.operator_state is not None, "every operator has a store"
        if source.kind is SourceKind.FUTURE:
            return self._feedback(str(source.data))
        count = RecordCount(head.operator_state, self._number, self._task.parallelism)
        if source.kind is SourceKind.CONNECTOR:
            return SplitInput(source.data, self._reader_context, head.operator_state, self._job.stopping.is_set)
        if source.kind is SourceKind.COLLECTION:
            return CollectionInput(source.data, self._job.stopping, count)
        return ReaderInput(
            self._iterator(source),
            name=self._task.head.node.name,
            capacity=2 * self._job.settings.buffer_size,
            stopping=self._job.stopping,
            aborted=self._job.aborted,
            count=None if source.kind is SourceKind.FUNCTION and not source.bounded else count,
        )

    def _feedback(self, name: str) -> FeedbackInput:
        """The beginning of a loop, with what was on its way back when the checkpoint was made."""
        beginning = FeedbackInput(self._loops.loop(name), self._job.stopping, self._job.aborted)
        parts = self._job.states.in_flight(self._task.head.node.uid)
        beginning.restore(deal(parts, self._number, self._task.parallelism, lambda port, batch: None))
        return beginning

    def _reader_context(self, wake: Callable[[], None]) -> ReaderContext:
        stopping, node = self._job.stopping.is_set, self._task.head.node
        bad_records = BadRecords(self._job.on_error, node.name, node.uid, self._number)
        return ReaderContext(self._number, self._task.parallelism, self._job.clock, stopping, wake, bad_records)

    def _iterator(self, source: SourceSpec) -> Callable[[], Iterator[Any]]:
        """Makes the iterator of a source; called in the thread that reads it."""
        if source.function is None:
            return partial(_iterated, source.data, self._task.head.node, self._job.attempt)
        bound = _as_new(source.function, self._job.settings).bind(self._number, self._task.parallelism)
        records = partial(calls, bound.call) if source.kind is SourceKind.FUNCTION else lambda: iter(bound.call())
        if bound.instance is None:
            return records
        return partial(_framed, bound.instance, self._context(self._task.head, None), records)

    def _operator(self, plan: PhysicalOperator) -> ChainOperator:
        state = self._state(plan)
        operator = ChainOperator(plan, keyed=state.keyed, operator_state=state.operator)
        if plan.node.factory is not None:
            operator.operator = plan.node.factory()
            if isinstance(plan.node.factory, FeedbackFactory) and isinstance(operator.operator, FeedbackOperator):
                operator.operator.loop = self._loops.loop(plan.node.factory.name)
                operator.operator.loop.ends += 1
            operator.operator_context = self._operator_context(plan, state)
        else:
            function = plan.node.function
            bound = self._bound(plan, function, state) if function is not None else BoundFunction(_nobody, None)
            operator.call, operator.stateful = bound.call, bound.instance is not None
            operator.key = self._bound(plan, plan.key, state).call if plan.key is not None else None
        for number in plan.outputs:
            self._edges[number] = self._output(plan, self._plan.edges[number])
        operator.children.extend(self._operator(child) for child in plan.children)
        return operator

    def _state(self, plan: PhysicalOperator) -> OperatorStates:
        keyed = plan.is_keyed or plan.node.kind is OperatorKind.REDUCE
        return self._job.states.open(plan.node.uid, self._number, self._task.parallelism, keyed=keyed)

    def _operator_context(self, plan: PhysicalOperator, state: OperatorStates) -> OperatorContext:
        return OperatorContext(
            function=self._context(plan, state),
            out=Emitter(),
            clock=self._job.clock,
            timers=TimerHeap(state.keyed),
            mailbox=_nobody,  # these two are the stage's
            wait=_nobody,
            operator_state=state.operator,
            keyed=state.keyed,
            key_selectors=tuple(self._bound(plan, key, state).call if key is not None else None for key in plan.keys),
            side_outputs=frozenset(plan.side_outputs),
        )

    def _output(self, plan: PhysicalOperator, edge: PhysicalEdge) -> Output:
        first = _first_channel(self._plan, edge)
        if edge.partitioning is Partitioning.FORWARD:
            receivers = [(self._gates[edge.target, self._number], first)]
        else:
            targets = range(self._plan.tasks[edge.target].parallelism)
            receivers = [(self._gates[edge.target, target], first + self._number) for target in targets]
        by_key = edge.key if edge.partitioning is Partitioning.HASH else None
        return Output(
            [(gate, channel) for gate, channel in receivers],
            edge.partitioning,
            (by_key, self._bound(plan, by_key, None).call) if by_key is not None else None,
            size=self._job.settings.buffer_size,
            timeout=self._job.settings.buffer_timeout,
            subtask=self._number,
            senders=self._task.parallelism,
            meter=self._meter,
            tag=edge.tag,
            on_key_error=partial(self._key_error, plan) if self._job.on_error is not None else None,
        )

    def _key_error(self, plan: PhysicalOperator, record: Any, timestamp: int | None, error: Exception) -> None:
        assert self._job.on_error is not None, "only then are records left out"
        self._job.on_error(RecordFailure("key_by", plan.node.uid, self._number, record, timestamp, error))

    def _bound(self, plan: PhysicalOperator, spec: FunctionSpec, state: OperatorStates | None) -> BoundFunction:
        bound = spec.bind(self._number, self._task.parallelism)
        if isinstance(bound.instance, BaseFunction):
            self._functions.append(OpenFunction(bound.instance, self._context(plan, state)))
        return bound

    def _context(self, plan: PhysicalOperator, state: OperatorStates | None) -> FunctionContext:
        return FunctionContext(
            job_id=self._job.job_id,
            job_name=self._job.name,
            operator=plan.node.name,
            operator_id=plan.node.uid,
            subtask_index=self._number,
            parallelism=self._task.parallelism,
            services=self._job.services,
            stopping=self._job.stopping,
            keyed=state.keyed if state is not None else None,
            operator_state=state.operator if state is not None else None,
            job=self._job.identity,
        )


class GateInput:
    """A gate as a task's input; batches come as the senders cut them."""

    def __init__(self, gate: InputGate) -> None:
        self._gate = gate

    @property
    def depth(self) -> int:
        return self._gate.depth

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        return self._gate.take(timeout)

    def wake(self) -> None:
        self._gate.wake()

    def close(self) -> None:
        """Senders find out through the job's `aborted` event."""


def _iterated(data: Iterable[Any], node: LogicalNode, attempt: int) -> Iterator[Any]:
    """From its first record; an iterator can be read only once."""
    iterator = iter(data)
    if attempt > 0 and iterator is data:
        raise PipelineError(
            f"Source {node.name!r} cannot be read again ({node.origin})",
            cause=f"a {type(data).__name__} gives its records only once, and the job has started again",
            hint="pass a list, or a function that returns the iterator",
        )
    return iterator


def _as_new(function: FunctionSpec, settings: RuntimeSettings) -> FunctionSpec:
    """A source's function as the user made it: where the job may start again, each attempt reads a copy."""
    if settings.restart.kind is RestartKind.NONE or isinstance(function.target, type):
        return function
    try:
        return replace(function, target=copy.deepcopy(function.target))
    except Exception:  # what cannot be copied is used as it is
        return function


def _framed(instance: BaseFunction, context: FunctionContext, records: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """The records between `open` and `close` of their source, all in one thread."""
    instance._context = context
    try:
        instance.open(context)
        yield from records()
    finally:
        instance.close()


def _nobody(*_: Any) -> None:
    """Called where there is nothing to call."""
