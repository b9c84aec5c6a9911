"""The step loop on its own thread: take in commands, schedule, execute, hand out what came.

Other threads only put commands into a queue, so an event loop beside it never waits for a step. Results go out
through one callback a step.

A step that fails ends the requests that it was the fault of, as far as that can be told; after three failures in a row
the executor is made anew, and what waits goes on with the new one. Ranks that are gone end the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic

from sagellm_core.engine_core.answers import Answers
from sagellm_core.engine_core.launcher import Launcher
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import CoreStats, Submission, Update
from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.engine_core.scheduler import Scheduler
from sagellm_core.errors import EngineError, lacks_memory
from sagellm_core.executor.base import Executor
from sagellm_protocol.errors import Error, ErrorCode
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams

__all__ = ["CoreStats", "EngineCore", "Submission", "Update"]

_LOG = logging.getLogger("sagellm_core")
_FATAL_FAILURES = 3
_STALL_S = 0.002
_STOPPED = "the engine stopped"


@dataclass(slots=True, frozen=True)
class _Order:
    """Work for the step thread, done between two steps (or when no request is left), and who waits for it."""

    work: Callable[[], None]
    done: Future[None]
    when_idle: bool = False


Deliver = Callable[[list[Update]], None]
_Command = Submission | str | Callable[[], None] | _Order | None


class EngineCore:
    """Scheduler and executor, driven by one thread. `deliver` is called on that thread.

    `after_step` is called there too, when a step's results are in the scheduler and before blocks are taken again; also
    when the loop is `stalled`: there is work but no room for a step, because others than sequences hold blocks.
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
        self._deliver = deliver
        self._clock = clock
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._orders: list[_Order] = []
        self._closed = False
        self._door = threading.Lock()
        self._consecutive_failures = 0
        self._broken: BaseException | None = None
        self._stopping = False
        self.stalled = False
        self._untold: Callable[[], list[Update]] | None = None
        self.asleep = False
        self.stats = CoreStats(block_size=block_size)
        self._launcher = Launcher(new_executor, limits, self.stats, self._when_lost, prefix_cache=prefix_cache)
        self.failure: BaseException | None = None
        self._scheduler: Scheduler | None = None
        self._answers: Answers | None = None

    # -- from any thread ----------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Hand in a request; its updates come through `deliver`, the last one with a finish reason, whatever happens.

        Raises EngineError (unavailable) when the loop has ended.
        """
        self._put(submission)

    def cancel(self, seq_id: str) -> None:
        """End a request at the next step border; unknown ids are passed over."""
        self._commands.put(seq_id)

    def call(self, work: Callable[[], None]) -> None:
        """Have `work` done on the step thread, between two steps; dropped when the loop has ended. Must not raise."""
        self._commands.put(work)

    def sleep(self) -> Future[None]:
        """Give memory back: weights leave the device, the cache is dropped. Requests go on when `wake` is called."""
        return self._order(self._fall_asleep)

    def wake(self) -> Future[None]:
        """End a sleep; nothing happens when there is none."""
        return self._order(self._wake_up)

    def reload(self, new_executor: Callable[[], Executor], limits: SchedulerConfig) -> Future[None]:
        """Go over to another model when all requests have ended; those of an engine that sleeps end now.

        When it cannot be loaded, the one before is loaded again, and the error is that of the new one.
        """
        return self._order(lambda: self._replace(new_executor, limits), when_idle=True)

    def refusal(self, num_prompt: int, max_total: int | None, sampling: SamplingParams) -> str | None:
        """Why a prompt of this length can never run here; None when it can."""
        return self.scheduler.refusal(num_prompt, max_total, sampling)

    def stop(self) -> None:
        self._commands.put(None)
        self._launcher.stop_soon()

    def _order(self, work: Callable[[], None], *, when_idle: bool = False) -> Future[None]:
        order = _Order(work, Future(), when_idle)
        self._put(order)
        return order.done

    def _put(self, command: Submission | _Order) -> None:
        with self._door:
            if self._closed:
                raise EngineError(ErrorCode.UNAVAILABLE, _STOPPED)
            self._commands.put(command)

    @property
    def healthy(self) -> bool:
        """Whether requests can be taken: the loop runs, does not sleep, and its executor works."""
        return self._scheduler is not None and not (
            self.failure or self._stopping or self.asleep or self._broken is not None
        )

    @property
    def executor(self) -> Executor:
        return self._launcher.executor

    @property
    def scheduler(self) -> Scheduler:
        assert self._scheduler is not None, "the core has not started"
        return self._scheduler

    @property
    def answers(self) -> Answers:
        assert self._answers is not None, "the core has not started"
        return self._answers

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
            try:
                self._end_all()
            finally:
                self._launcher.stop()

    def start(self) -> None:
        """Load the model and lay out the cache, on the calling thread."""
        self._launcher.launch()
        self._open()

    def _open(self) -> None:
        """Bookkeeping for an executor that has just started."""
        self._scheduler = Scheduler(self._launcher.limits(), self._launcher.new_blocks())
        self._answers = Answers(self._scheduler)

    def turn(self, *, block: bool = False) -> None:
        """Take in what waits in the queue, then do one step. With `block`, wait for work when there is none."""
        updates: list[Update] = []
        try:
            idle = self.asleep or self._broken is not None or self.stalled or not self.scheduler.has_work
            if idle or not self._commands.empty():
                self._tell()
            self._take_commands(updates, self._patience() if block and idle else 0.0)
            if self._stopping:
                return
            expired = self.answers.expired(self._clock())
            if expired:
                self._tell()
            for name in expired:
                self._end(name, "error", ErrorCode.DEADLINE_EXCEEDED, "the request's deadline has passed", updates)
            if self._broken is not None:
                self._revive(self._broken, updates)
            able = not self.asleep and self._broken is None
            plan = self.scheduler.schedule() if able else None
            if plan is not None:
                self._step(plan, updates)
            self.stalled = able and plan is None and self.scheduler.has_work
            if self._after_step is not None and (plan is not None or self.stalled):
                self._after_step()
            self._count()
        finally:
            if updates:
                self._deliver(updates)
        if self._orders and not self.scheduler.has_work:
            self._tell()
            self._carry_out_orders()

    def _patience(self) -> float | None:
        """How long to wait for a command at most, in seconds; None: until one comes."""
        if self._broken is not None:
            return self._launcher.pause_s
        if self.stalled:
            return _STALL_S
        return 1.0 if self.asleep and self.scheduler.has_work else None

    def _take_commands(self, updates: list[Update], patience: float | None) -> None:
        while True:
            try:
                command = self._commands.get(patience != 0.0, patience or None)
            except Empty:
                return
            patience = 0.0
            if command is None:
                self._stopping = True
                return
            if isinstance(command, _Order):
                self._orders.append(command)
                self._carry_out_orders()
            elif isinstance(command, str):
                self._end(command, "cancelled", ErrorCode.CANCELLED, "the request was cancelled", updates)
            elif isinstance(command, Submission):
                self._admit(command, updates)
            else:
                command()

    def _carry_out_orders(self) -> None:
        """Do what was ordered, as far as its time has come."""
        busy = self.scheduler.has_work and not self.asleep
        due = [order for order in self._orders if not (order.when_idle and busy)]
        self._orders = [order for order in self._orders if order not in due]
        for order in due:
            if not order.done.set_running_or_notify_cancel():
                continue
            try:
                order.work()
            except Exception as error:
                order.done.set_exception(error)
            else:
                order.done.set_result(None)

    def _admit(self, item: Submission, updates: list[Update]) -> None:
        try:
            self.answers.enter(item)
        except ValueError as error:
            refusal = Error(code=ErrorCode.INVALID_ARGUMENT, message=str(error))
            updates.append(Update(item.seq_id, self._clock(), finish_reason="error", error=refusal))

    def _step(self, plan: SchedulerOutput, updates: list[Update]) -> None:
        self.answers.begin(plan, self._clock())
        try:
            output = self._launcher.execute(plan, meanwhile=self._tell)
        except Exception as error:  # the requests of this step fail, the engine lives on
            self._fail(error, updates)
            return
        self._consecutive_failures = 0
        done = self._clock()
        progress = self.scheduler.update(output)
        self.stats.steps += 1
        self.stats.generation_tokens += sum(len(each.tokens) for each in progress)
        if self._launcher.overlaps and not self.answers.steer:
            self._untold = partial(self.answers.news, progress, output, done)
        else:
            updates += self.answers.news(progress, output, done)

    def _tell(self) -> None:
        """Those who asked hear what the last step gave, if they have not yet."""
        untold, self._untold = self._untold, None
        if untold is not None:
            self._deliver(untold())

    # -- failures, sleep, other models --------------------------------------------------------------------------

    def _fail(self, error: Exception, updates: list[Update]) -> None:
        _LOG.error("a step failed: %s", error, exc_info=error)
        self.stats.failures += 1
        self._consecutive_failures += 1
        self._tell()
        suspects = self.scheduler.fail()
        if isinstance(error, EngineError) and error.error_code is ErrorCode.DISTRIBUTED_RUNTIME_ERROR:
            self._lose(error)
            return
        message = f"the step failed: {type(error).__name__}: {error}"
        for group in suspects:
            self._end(group.request_id, "error", _code_of(error), message, updates)
        if self._consecutive_failures >= _FATAL_FAILURES:
            self._broken = error

    def _when_lost(self, error: EngineError) -> None:
        self.call(lambda: self._lose(error))

    def _lose(self, error: EngineError) -> None:
        """The ranks are gone, and with them the cache: nothing can be computed any more."""
        self.failure = error
        self._stopping = True

    def _revive(self, why: BaseException, updates: list[Update]) -> None:
        """Steps fail again and again: go on with a new executor, when there is one."""
        if not self._launcher.relaunch(why):
            return
        for group in self.scheduler.begin_anew(self._launcher.new_blocks()):
            message = "the engine's cache has become too small for the request"
            self._end(group.request_id, "error", ErrorCode.RESOURCE_EXHAUSTED, message, updates)
        self._broken, self._consecutive_failures = None, 0

    def _fall_asleep(self) -> None:
        if not self.asleep:
            self.scheduler.drop_cache()
            self.executor.sleep()
            self.asleep = True

    def _wake_up(self) -> None:
        if self.asleep:
            self.executor.wake()
            self.asleep = False

    def _replace(self, new_executor: Callable[[], Executor], limits: SchedulerConfig) -> None:
        updates: list[Update] = []
        for group in self.scheduler.requests:
            self._end(group.request_id, "error", ErrorCode.UNAVAILABLE, "the engine loads another model", updates)
        if updates:
            self._deliver(updates)
        try:
            self._launcher.exchange(new_executor, limits)
        finally:
            self.asleep, self._broken = False, None
            self._open()

    def _end(self, name: str, reason: FinishReason, code: ErrorCode, message: str, updates: list[Update]) -> None:
        error = EngineError(code, message).to_protocol()
        updates += self.answers.end(name, reason, error, self._clock())

    def _end_all(self) -> None:
        """The engine stops: everything that still runs or waits in the queue is told so, and nothing more comes in."""
        self._tell()
        with self._door:
            self._closed = True
        updates: list[Update] = []
        code = self.failure.error_code if isinstance(self.failure, EngineError) else ErrorCode.UNAVAILABLE
        why = str(self.failure) if isinstance(self.failure, EngineError) else _STOPPED
        for group in self.scheduler.requests:
            self._end(group.request_id, "error", code, why, updates)
        while not self._commands.empty():
            command = self._commands.get()
            stopped = EngineError(ErrorCode.UNAVAILABLE, _STOPPED)
            if isinstance(command, Submission):
                error = stopped.to_protocol()
                updates.append(Update(command.seq_id, self._clock(), finish_reason="error", error=error))
            elif isinstance(command, _Order):
                self._orders.append(command)
        for order in self._orders:
            if order.done.set_running_or_notify_cancel():
                order.done.set_exception(EngineError(ErrorCode.UNAVAILABLE, _STOPPED))
        if updates:
            self._deliver(updates)

    def _count(self) -> None:
        scheduler, stats = self.scheduler, self.stats
        stats.running, stats.waiting = len(scheduler.running), len(scheduler.waiting)
        stats.kv_usage = scheduler.blocks.usage
        stats.preemptions, stats.evictions = scheduler.preemptions, scheduler.blocks.evictions
        stats.prompt_tokens = stats.prefix_lookup_tokens = scheduler.prompt_tokens_seen
        stats.prefix_hit_tokens = scheduler.prompt_tokens_cached
        stats.drafts_proposed, stats.drafts_accepted = scheduler.drafts_proposed, scheduler.drafts_accepted
        comm = self.executor.comm
        stats.comm = (comm.all_reduces, comm.all_gathers, comm.seconds)


def _code_of(error: Exception) -> ErrorCode:
    """What a failed step is to those whose requests it takes with it."""
    if isinstance(error, EngineError):
        return error.error_code
    return ErrorCode.RESOURCE_EXHAUSTED if lacks_memory(error) else ErrorCode.INTERNAL
