"""The step loop on its own thread: take in commands, schedule, execute, hand out what came.

Other threads only put commands into a queue, so an event loop beside it never waits for a step. Results go out
through one callback a step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from time import monotonic

from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput
from sagellm_core.engine_core.scheduler import Scheduler, SchedulerConfig
from sagellm_core.engine_core.sequence import Sequence
from sagellm_core.errors import EngineError
from sagellm_core.executor.base import Executor
from sagellm_core.text.output import OutputText
from sagellm_protocol.errors import Error, ErrorCode
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams

_LOG = logging.getLogger("sagellm_core")
_FATAL_FAILURES = 3
_STOPPED = "the engine stopped"


@dataclass(slots=True, frozen=True)
class Submission:
    """A request for the scheduler.

    `text` turns its tokens into text, `stop_ids` end it, `deadline` is on the core's clock.
    """

    seq_id: str
    prompt: list[int]
    sampling: SamplingParams
    text: OutputText | None = None
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    max_total: int | None = None
    deadline: float | None = None


@dataclass(slots=True, frozen=True)
class Update:
    """News of one sequence: a token with the text that it made certain, an end, or both.

    `at` is when the step ended, `scheduled_at` when the sequence's first step began.
    """

    seq_id: str
    at: float
    token: SampledToken | None = None
    text: str = ""
    finish_reason: FinishReason | None = None
    error: Error | None = None
    scheduled_at: float = 0.0
    cached_tokens: int = 0


@dataclass(slots=True)
class CoreStats:
    """Counters for whoever looks; written by the step thread, read by any."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    kv_blocks: int = 0
    block_size: int = 0
    bytes_per_token: int = 0
    steps: int = 0
    preemptions: int = 0
    evictions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_lookup_tokens: int = 0
    prefix_hit_tokens: int = 0
    failures: int = 0
    device: dict[str, object] = field(default_factory=dict)
    dtype: str = ""

    @property
    def prefix_hit_ratio(self) -> float:
        return self.prefix_hit_tokens / self.prefix_lookup_tokens if self.prefix_lookup_tokens else 0.0


Deliver = Callable[[list[Update]], None]
_Command = Submission | str | Callable[[], None] | None


class EngineCore:
    """Scheduler and executor, driven by one thread. `deliver` is called on that thread.

    `after_step` is called there too, when a step's results are in the scheduler and before blocks are taken again.
    """

    def __init__(
        self,
        new_executor: Callable[[], Executor],
        limits: SchedulerConfig,
        deliver: Deliver,
        *,
        block_size: int,
        prefix_cache: bool = True,
        clock: Callable[[], float] = monotonic,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._after_step = after_step
        self._new_executor = new_executor
        self._executor: Executor | None = None
        self._limits = limits
        self._deliver = deliver
        self._block_size = block_size
        self._prefix_cache = prefix_cache
        self._clock = clock
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._closed = False
        self._door = threading.Lock()
        self._deadlines: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._texts: dict[str, OutputText] = {}
        self._consecutive_failures = 0
        self._stopping = False
        self.stats = CoreStats(block_size=block_size)
        self.failure: BaseException | None = None
        self._scheduler: Scheduler | None = None

    # -- from any thread ----------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Hand in a request; its updates come through `deliver`, the last one with a finish reason, whatever happens.

        Raises EngineError (unavailable) when the loop has ended.
        """
        with self._door:
            if self._closed:
                raise EngineError(ErrorCode.UNAVAILABLE, _STOPPED)
            self._commands.put(submission)

    def cancel(self, seq_id: str) -> None:
        """End a sequence at the next step border; unknown ids are passed over."""
        self._commands.put(seq_id)

    def call(self, work: Callable[[], None]) -> None:
        """Have `work` done on the step thread, between two steps; dropped when the loop has ended. Must not raise."""
        self._commands.put(work)

    def stop(self) -> None:
        self._commands.put(None)

    @property
    def healthy(self) -> bool:
        """Whether steps are running, and not failing again and again."""
        return self._scheduler is not None and self.failure is None and not self._stopping

    @property
    def executor(self) -> Executor:
        assert self._executor is not None, "the core has not started"
        return self._executor

    @property
    def scheduler(self) -> Scheduler:
        assert self._scheduler is not None, "the core has not started"
        return self._scheduler

    # -- on the step thread -------------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[BaseException | None], None]) -> None:
        """Load, report through `on_ready` (None, or why not), then step until `stop`."""
        try:
            self.start()
        except BaseException as error:  # whatever loading raised belongs to whoever waits for it
            on_ready(error)
            return
        on_ready(None)
        try:
            while not self._stopping:
                self.turn(block=True)
        except BaseException as error:  # a fault of the loop itself: nobody may wait for answers that never come
            _LOG.critical("the engine's step loop ended: %s", error, exc_info=error)
            self.failure = error
        finally:
            self._end_all()
            self.executor.stop()

    def start(self) -> None:
        """Load the model and lay out the cache, on the calling thread."""
        self._executor = self._new_executor()
        info = self._executor.start()
        self._executor.watch(lambda error: self.call(lambda: self._lose(error)))
        limits = self._limits
        if limits.max_batched_tokens is None:
            limits = replace(limits, max_batched_tokens=info.token_budget)
        blocks = BlockManager(info.num_blocks, self._block_size, prefix_cache=self._prefix_cache)
        self._scheduler = Scheduler(limits, blocks)
        self.stats.kv_blocks = info.num_blocks
        self.stats.bytes_per_token = info.bytes_per_token
        self.stats.dtype, self.stats.device = info.dtype, info.device

    def turn(self, *, block: bool = False) -> None:
        """Take in what waits in the queue, then do one step. With `block`, wait for work when there is none."""
        updates: list[Update] = []
        try:
            self._take_commands(updates, block=block and not self.scheduler.has_work)
            if self._stopping:
                return
            if self._deadlines:
                self._expire(updates)
            plan = self.scheduler.schedule()
            if plan is not None:
                self._step(plan, updates)
                if self._after_step is not None:
                    self._after_step()
            self._count()
        finally:
            if updates:
                self._deliver(updates)

    def _take_commands(self, updates: list[Update], *, block: bool) -> None:
        while True:
            try:
                command = self._commands.get(block=block)
            except Empty:
                return
            block = False
            if command is None:
                self._stopping = True
                return
            if callable(command):
                command()
            elif isinstance(command, str):
                self._end(command, "cancelled", ErrorCode.CANCELLED, "the request was cancelled", updates)
            else:
                self._admit(command, updates)

    def _admit(self, item: Submission, updates: list[Update]) -> None:
        try:
            self.scheduler.add(
                item.seq_id,
                item.prompt,
                item.sampling,
                priority=item.priority,
                stop_ids=item.stop_ids,
                max_total=item.max_total,
            )
        except ValueError as error:
            refusal = Error(code=ErrorCode.INVALID_ARGUMENT, message=str(error))
            updates.append(Update(item.seq_id, self._clock(), finish_reason="error", error=refusal))
            return
        if item.text is not None:
            self._texts[item.seq_id] = item.text
        if item.deadline is not None:
            self._deadlines[item.seq_id] = item.deadline

    def _expire(self, updates: list[Update]) -> None:
        now = self._clock()
        for seq_id in [seq_id for seq_id, deadline in self._deadlines.items() if deadline <= now]:
            self._end(seq_id, "error", ErrorCode.DEADLINE_EXCEEDED, "the request's deadline has passed", updates)

    def _step(self, plan: SchedulerOutput, updates: list[Update]) -> None:
        now = self._clock()
        for new in plan.new:
            self._begun[new.seq_id] = now
        try:
            output = self.executor.execute(plan)
        except Exception as error:  # the requests of this step fail, the engine lives on
            self._fail(plan.seq_ids, error, updates)
            return
        self._consecutive_failures = 0
        done = self._clock()
        progress = self.scheduler.update(output)
        updates += [self._news(each.sequence, each.token, done) for each in progress]
        self.stats.steps += 1
        self.stats.generation_tokens += len(progress)

    def _news(self, sequence: Sequence, token: SampledToken, at: float) -> Update:
        seq_id = sequence.seq_id
        begun = self._begun.get(seq_id, 0.0)
        if token.token_id < 0:
            self._forget(seq_id)
            error = Error(code=ErrorCode.INTERNAL, message="the model gave no usable numbers (NaN)")
            return Update(seq_id, at, None, "", "error", error, begun, sequence.num_cached)
        text = ""
        if (output := self._texts.get(seq_id)) is not None:
            text, stopped = output.push(token.token_id, last=sequence.finish_reason)
            if stopped and sequence.finish_reason is None:
                self.scheduler.finish(seq_id, "stop")
            elif stopped:
                sequence.finish_reason = "stop"
        if sequence.finish_reason is not None:
            self._forget(seq_id)
        return Update(seq_id, at, token, text, sequence.finish_reason, None, begun, sequence.num_cached)

    def _fail(self, seq_ids: Iterable[str], error: Exception, updates: list[Update]) -> None:
        _LOG.error("a step failed: %s", error, exc_info=error)
        self.stats.failures += 1
        self._consecutive_failures += 1
        if self._consecutive_failures >= _FATAL_FAILURES:
            self.failure = error
        if isinstance(error, EngineError) and error.error_code is ErrorCode.DISTRIBUTED_RUNTIME_ERROR:
            self._lose(error)
        message = f"the step failed: {type(error).__name__}: {error}"
        code = error.error_code if isinstance(error, EngineError) else ErrorCode.INTERNAL
        for seq_id in seq_ids:
            self._end(seq_id, "error", code, message, updates)

    def _lose(self, error: EngineError) -> None:
        """The ranks are gone, and with them the cache: nothing can be computed any more."""
        self.failure = error
        self._stopping = True

    def _end(self, seq_id: str, reason: FinishReason, code: ErrorCode, message: str, updates: list[Update]) -> None:
        sequence = self.scheduler.finish(seq_id, reason)
        if sequence is None:
            return
        updates.append(
            Update(
                seq_id,
                self._clock(),
                finish_reason=reason,
                error=Error(code=code, message=message),
                scheduled_at=self._begun.get(seq_id, 0.0),
                cached_tokens=sequence.num_cached,
            )
        )
        self._forget(seq_id)

    def _forget(self, seq_id: str) -> None:
        self._deadlines.pop(seq_id, None)
        self._begun.pop(seq_id, None)
        self._texts.pop(seq_id, None)

    def _end_all(self) -> None:
        """The engine stops: everything that still runs or waits in the queue is told so, and nothing more comes in."""
        with self._door:
            self._closed = True
        updates: list[Update] = []
        code = self.failure.error_code if isinstance(self.failure, EngineError) else ErrorCode.UNAVAILABLE
        why = str(self.failure) if isinstance(self.failure, EngineError) else _STOPPED
        for seq_id in [item.seq_id for item in self.scheduler.running + self.scheduler.waiting]:
            self._end(seq_id, "error", code, why, updates)
        while not self._commands.empty():
            command = self._commands.get()
            if isinstance(command, Submission):
                stopped = Error(code=ErrorCode.UNAVAILABLE, message=_STOPPED, retryable=True)
                updates.append(Update(command.seq_id, self._clock(), finish_reason="error", error=stopped))
        if updates:
            self._deliver(updates)

    def _count(self) -> None:
        scheduler, stats = self.scheduler, self.stats
        stats.running, stats.waiting = len(scheduler.running), len(scheduler.waiting)
        stats.kv_usage = scheduler.blocks.usage
        stats.preemptions, stats.evictions = scheduler.preemptions, scheduler.blocks.evictions
        stats.prompt_tokens = stats.prefix_lookup_tokens = scheduler.prompt_tokens_seen
        stats.prefix_hit_tokens = scheduler.prompt_tokens_cached


def start_thread(
    core: EngineCore, on_ready: Callable[[BaseException | None], None], on_stopped: Callable[[], None]
) -> threading.Thread:
    """Run a core on its own thread, which does not outlive the process."""

    def run() -> None:
        try:
            core.run(on_ready)
        finally:
            on_stopped()

    thread = threading.Thread(target=run, name="sage-engine-steps", daemon=True)
    thread.start()
    return thread
