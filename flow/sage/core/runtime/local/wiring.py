"""Makes the subtasks of a plan and joins them with in-process channels."""

from __future__ import annotations

from functools import partial
from typing import Any

from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.api.function.call_origin import CallOrigin
from sage.core.graph.plan import PhysicalEdge, PhysicalOperator, PhysicalPlan, TaskPlan
from sage.core.graph.spec import BoundFunction, FunctionSpec, OperatorKind, Partitioning
from sage.core.runtime.chain import Chain, ChainOperator
from sage.core.runtime.channel import InputGate
from sage.core.runtime.checkpointing import SubtaskCheckpoints
from sage.core.runtime.failure import RecordFailure
from sage.core.runtime.feedback import FeedbackFactory, FeedbackInput, FeedbackLoops, FeedbackOperator
from sage.core.runtime.lifecycle import OpenFunction
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.local.gates import GateInput, Neighbourhood, first_channel, make_gates
from sage.core.runtime.local.sources import SourceInput, SubtaskSource
from sage.core.runtime.mailbox import Mailbox
from sage.core.runtime.meter import Meter
from sage.core.runtime.operators.base import Emitter, OperatorContext
from sage.core.runtime.output import Output, Receiver
from sage.core.runtime.positions import counted, origin_of
from sage.core.runtime.states import OperatorStates
from sage.core.runtime.task import Task
from sage.core.runtime.timer_heap import TimerHeap
from sage.core.runtime.tracing import TaskTracer, TokenBucket

__all__ = ["JobContext", "wire"]

_SLICES = 4  # how many full buffers a task may take from its source at once, where that is quick


def wire(plan: PhysicalPlan, job: JobContext, near: Neighbourhood | None = None) -> tuple[list[Task], list[InputGate]]:
    """The subtasks of the plan that run here (all, without `near`), topologically, and the gates between them."""
    gates = make_gates(plan, job, near)
    loops = FeedbackLoops()
    tasks = [
        _Subtask(plan, task, number, gates, job, loops, near).build()
        for task in plan.tasks
        for number in range(task.parallelism)
        if near is None or near.is_here(task.index, number)
    ]
    return tasks, list(gates.values())


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
        near: Neighbourhood | None,
    ) -> None:
        self._near = near
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
        self._origins: dict[str, CallOrigin | None] = {}

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
            tracer=self._tracer(chain),
        )

    def _checkpoints(self, chain: Chain, source: GateInput | SourceInput) -> SubtaskCheckpoints | None:
        access = self._job.checkpoints
        if access is None:
            return None
        position = None if isinstance(source, GateInput) else source
        gate = source if isinstance(source, FeedbackInput) else self._gates.get((self._task.index, self._number))
        return SubtaskCheckpoints(self._task.index, self._number, chain.operators, access, position, gate)

    def _tracer(self, chain: Chain) -> TaskTracer | None:
        job = self._job
        if job.spans is None:
            return None
        begins = self._task.head.node.source is not None
        bucket = TokenBucket(job.settings.observability.traces, job.clock.monotonic) if begins else None
        return TaskTracer(
            job.spans,
            chain.operators,
            chain.operator_at,
            self._edges,
            job=job.name,
            subtask=self._number,
            bucket=bucket,
        )

    def _input(self, head: ChainOperator) -> GateInput | SourceInput:
        gate = self._gates.get((self._task.index, self._number))
        spec = self._task.head.node.source
        if spec is None:
            assert gate is not None, "a task without a source has an input"
            near = self._near
            return GateInput(gate) if near is None else near.input(gate, self._task.index, self._number)
        assert head.operator_state is not None, "every operator has a store"
        function_context = self._context(self._task.head, None)
        source = SubtaskSource(self._task, self._number, self._job, self._loops, function_context)
        return source.input(spec, head.operator_state)

    def _operator(self, plan: PhysicalOperator) -> ChainOperator:
        state = self._state(plan)
        origin = self._origins[plan.node.uid] = self._origin(plan, state)
        operator = ChainOperator(plan, keyed=state.keyed, operator_state=state.operator, origin=origin)
        if plan.node.factory is not None:
            operator.operator = plan.node.factory()
            if isinstance(plan.node.factory, FeedbackFactory) and isinstance(operator.operator, FeedbackOperator):
                operator.operator.loop = self._loops.loop(plan.node.factory.name)
                operator.operator.loop.ends += 1
            operator.operator_context = self._operator_context(plan, state)
        else:
            function = plan.node.function
            bound = self._bound(plan, function, state) if function is not None else BoundFunction(_nobody, None)
            operator.call = bound.call if origin is None else counted(bound.call, origin)
            operator.stateful = bound.instance is not None
            operator.key = self._bound(plan, plan.key, state).call if plan.key is not None else None
        for number in plan.outputs:
            self._edges[number] = self._output(plan, self._plan.edges[number])
        operator.children.extend(self._operator(child) for child in plan.children)
        return operator

    def _origin(self, plan: PhysicalOperator, state: OperatorStates) -> CallOrigin | None:
        """What its calls of services are told apart by; None where it makes none."""
        run, has_services = f"{self._job.identity}/{self._job.job_id}", bool(getattr(self._job.services, "names", ()))
        return origin_of(plan.node, state.operator, self._number, run=run, has_services=has_services)

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
        first = first_channel(self._plan, edge)
        if edge.partitioning is Partitioning.FORWARD:
            receivers = [(self._receiver(edge.target, self._number), first)]
        else:
            targets = range(self._plan.tasks[edge.target].parallelism)
            receivers = [(self._receiver(edge.target, target), first + self._number) for target in targets]
        by_key = edge.key if edge.partitioning is Partitioning.HASH else None
        return Output(
            receivers,
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

    def _receiver(self, task: int, subtask: int) -> Receiver:
        gate = self._gates.get((task, subtask))
        if gate is not None:
            return gate
        assert self._near is not None, "all subtasks are in this process"
        return self._near.receiver(task, subtask)

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
            origin=self._origins.get(plan.node.uid),
        )


def _nobody(*_: Any) -> None:
    """Called where there is nothing to call."""
