"""The step loop when things go wrong: failing steps, executors that do not start, sleep, other models (SPEC E4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.helpers.toy_worker import ToyWorker, expected

from sagellm_core import EngineError
from sagellm_core.engine_core import SchedulerConfig
from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput, StepOutput
from sagellm_core.executor.base import CommStats, WorkerInfo
from sagellm_protocol import ErrorCode, SamplingParams

pytestmark = pytest.mark.spec("E4")
INFO = WorkerInfo(num_blocks=24, token_budget=32, bytes_per_token=1, dtype="none", device={})


class ToyExecutor:
    """Runs plans on a toy worker; raises what a test wants raised."""

    def __init__(self, faults: list[Exception], info: WorkerInfo = INFO) -> None:
        self.info = info
        self.faults = faults
        self.worker = ToyWorker(info.num_blocks, 4)
        self.lost: Callable[[EngineError], None] | None = None
        self.orders: list[str] = []
        self.comm = CommStats()

    def start(self) -> WorkerInfo:
        return self.info

    def watch(self, on_lost: Callable[[EngineError], None]) -> None:
        self.lost = on_lost

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        assert self.orders[-1:] != ["sleep"], "a step in its sleep"
        if self.faults:
            raise self.faults.pop(0)
        return self.worker.execute(plan)

    def read_blocks(self, blocks: list[int]) -> bytearray:
        raise NotImplementedError

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    def sleep(self) -> None:
        self.orders.append("sleep")
        self.worker.cache = [None] * len(self.worker.cache)

    def wake(self) -> None:
        self.orders.append("wake")

    def stop(self) -> None:
        self.orders.append("stop")


class OverlappingToy(ToyExecutor):
    """Computes a step when its result is asked for, and notes how many updates had been told at both times."""

    def __init__(self, faults: list[Exception], told: list[Update]) -> None:
        super().__init__(faults)
        self.told = told
        self.plan: SchedulerOutput | None = None
        self.seen: list[tuple[int, int]] = []

    def submit(self, plan: SchedulerOutput) -> None:
        assert self.plan is None
        self.plan = plan
        self.seen.append((len(self.told), -1))

    def result(self) -> StepOutput:
        plan, self.plan = self.plan, None
        assert plan is not None
        self.seen[-1] = (self.seen[-1][0], len(self.told))
        return self.execute(plan)

    def abandon(self) -> None: ...


class Driver:
    """A core that is turned by hand, with a clock of its own; `starts` are what its executors do when they begin."""

    def __init__(self, *faults: Exception, overlaps: bool = False) -> None:
        self.faults = list(faults)
        self.overlaps = overlaps
        self.refusals: list[Exception] = []
        self.executors: list[ToyExecutor] = []
        self.updates: list[Update] = []
        self.now = 100.0
        self.core = EngineCore(self.new, SchedulerConfig(4, None, 40), self.updates.extend, block_size=4,
                               clock=lambda: self.now)  # fmt: skip
        self.core.start()

    def new(self) -> ToyExecutor:
        if self.refusals and self.executors:
            raise self.refusals.pop(0)
        self.executors.append(OverlappingToy(self.faults, self.updates) if self.overlaps else ToyExecutor(self.faults))
        return self.executors[-1]

    def submit(self, name: str, prompt: list[int], max_tokens: int = 8, deadline: float | None = None) -> None:
        self.core.submit(Submission(name, prompt, SamplingParams(max_tokens=max_tokens), deadline=deadline))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.core.turn()

    def finish(self) -> None:
        for _ in range(200):
            self.core.turn()
            if not self.core.scheduler.has_work and self.core.healthy:
                return
        raise AssertionError("the requests do not come to an end")

    def tokens(self, name: str) -> list[int]:
        return [token.token_id for update in self.updates if update.seq_id == name for token in update.tokens]

    def last(self, name: str) -> Update:
        return [update for update in self.updates if update.seq_id == name][-1]

    def is_right(self, name: str, prompt: list[int], max_tokens: int = 8) -> bool:
        """The request has ended with the tokens that it must have got."""
        wanted = expected(prompt, SamplingParams(), len(prompt) + max_tokens, frozenset())[0][0]
        return self.tokens(name) == wanted and self.last(name).finish_reason == "length"


def test_a_step_out_of_memory_takes_the_prompt_with_it_and_the_answers_go_on() -> None:
    driver = Driver()
    driver.submit("answers", [1, 2, 3])
    driver.turn(2)
    driver.faults.append(MemoryError("no room for the logits"))
    driver.submit("reads", [3, 2, 1, 0])
    driver.finish()
    assert driver.is_right("answers", [1, 2, 3])
    error = driver.last("reads").error
    assert error is not None
    assert error.code is ErrorCode.RESOURCE_EXHAUSTED
    assert error.retryable
    assert "no room for the logits" in error.message
    assert driver.core.stats.failures == 1


def test_what_a_worker_says_of_a_sequence_reaches_who_asked() -> None:
    driver = Driver()
    driver.submit("a", [1, 2, 3])
    driver.submit("b", [3, 2, 1])
    executor = driver.executors[0]
    execute = executor.execute

    def faulty(plan: SchedulerOutput) -> StepOutput:
        output = execute(plan)
        output.tokens["a"] = [SampledToken(-1)]
        output.failures["a"] = "the grammar cannot go on"
        return output

    executor.execute = faulty  # type: ignore[method-assign]
    driver.turn()
    executor.execute = execute  # type: ignore[method-assign]
    driver.finish()
    error = driver.last("a").error
    assert error is not None
    assert "the grammar cannot go on" in error.message
    assert driver.is_right("b", [3, 2, 1])


def test_after_three_failures_the_executor_is_made_anew_and_what_waits_goes_on() -> None:
    driver = Driver()
    names = [f"r{number}" for number in range(16)]
    for number, name in enumerate(names):
        driver.submit(name, [1, 2, number % 4])
    driver.turn(3)
    driver.faults += [RuntimeError("the device is gone")] * 3
    driver.finish()
    assert len(driver.executors) == 2
    assert driver.executors[0].orders == ["stop"]
    assert driver.core.stats.restarts == 1
    assert [driver.last(name).finish_reason for name in names[:12]] == ["error"] * 12
    assert all(driver.is_right(name, [1, 2, number % 4]) for number, name in enumerate(names) if number >= 12)


def test_an_executor_that_does_not_start_is_tried_again_later() -> None:
    driver = Driver(*[RuntimeError("broken")] * 3)
    driver.refusals = [OSError("no device"), OSError("still none")]
    for name in "abc":
        driver.submit(name, [1, 2, 3])
        driver.turn()
    driver.submit("waits", [3, 2, 1], deadline=driver.now + 60)
    driver.submit("late", [3, 2, 1], deadline=driver.now + 1)
    driver.turn()
    assert not driver.core.healthy
    driver.now += 2
    driver.core.turn()
    late = driver.last("late").error
    assert late is not None
    assert late.code is ErrorCode.DEADLINE_EXCEEDED
    driver.finish()
    assert driver.is_right("waits", [3, 2, 1])


def test_ranks_that_are_gone_end_the_loop_with_their_last_words() -> None:
    driver = Driver()
    driver.submit("a", [1, 2, 3])
    driver.turn(2)
    lost = driver.executors[0].lost
    assert lost is not None
    lost(EngineError(ErrorCode.DISTRIBUTED_RUNTIME_ERROR, "rank 1 was killed"))
    ready: list[BaseException | None] = []
    driver.core.run(ready.append)
    driver = Driver()
    driver.faults.append(EngineError(ErrorCode.DISTRIBUTED_RUNTIME_ERROR, "rank 1 was killed"))
    driver.submit("a", [1, 2, 3])
    driver.core.run(ready.append)
    assert ready == [None, None]
    error = driver.last("a").error
    assert error is not None
    assert error.code is ErrorCode.DISTRIBUTED_RUNTIME_ERROR
    assert "rank 1 was killed" in error.message
    with pytest.raises(EngineError, match="stopped"):
        driver.submit("b", [1])


def test_requests_outlast_a_sleep() -> None:
    driver = Driver()
    driver.submit("a", [1, 2, 3], 20)
    driver.submit("late", [2, 2, 2], 20, deadline=driver.now + 5)
    driver.turn(3)
    asleep = driver.core.sleep()
    driver.turn(3)
    assert asleep.done()
    assert not driver.core.healthy
    assert driver.core.scheduler.blocks.usage == 0
    driver.now += 10
    driver.turn()
    assert driver.last("late").finish_reason == "error"
    driver.core.wake()
    driver.finish()
    assert driver.executors[0].orders == ["sleep", "wake"]
    assert driver.is_right("a", [1, 2, 3], 20)


def test_a_sleep_that_fails_is_told_and_leaves_the_engine_awake() -> None:
    driver = Driver()
    driver.executors[0].sleep = _cannot  # type: ignore[method-assign]
    driver.submit("a", [1, 2, 3])
    driver.turn(2)
    asleep = driver.core.sleep()
    driver.turn()
    with pytest.raises(OSError, match="cannot"):
        asleep.result(timeout=0)
    driver.finish()
    assert driver.is_right("a", [1, 2, 3])


def test_a_model_that_cannot_be_loaded_leaves_the_one_before() -> None:
    driver = Driver()
    driver.submit("a", [1, 2, 3], 20)
    driver.turn(2)

    def broken() -> ToyExecutor:
        raise OSError("torn file")

    order = driver.core.reload(broken, SchedulerConfig(4, None, 40))
    driver.turn()
    assert not order.done()
    driver.finish()
    with pytest.raises(OSError, match="torn file"):
        order.result(timeout=0)
    assert driver.is_right("a", [1, 2, 3], 20)
    driver.submit("b", [1, 2, 3])
    driver.finish()
    assert driver.is_right("b", [1, 2, 3])


def test_what_a_step_gave_is_told_while_the_next_is_computed() -> None:
    driver = Driver(overlaps=True)
    for number in range(3):
        driver.submit(f"r{number}", [number, 1])
    driver.finish()
    driver.turn()
    assert all(driver.is_right(f"r{number}", [number, 1]) for number in range(3))
    executor = driver.executors[0]
    assert isinstance(executor, OverlappingToy)
    assert executor.seen == [(max(3 * step - 3, 0), 3 * step) for step in range(8)]


def test_news_come_in_order_around_cancels_failures_and_deadlines() -> None:
    driver = Driver(overlaps=True)
    driver.submit("cancelled", [0, 1], 20)
    driver.submit("late", [1, 1], 20, deadline=driver.now + 5)
    driver.submit("right", [2, 1])
    driver.turn(3)
    driver.core.cancel("cancelled")
    driver.turn()
    driver.now += 10
    driver.turn()
    driver.faults.append(RuntimeError("broken"))
    driver.submit("fails", [3, 1])
    driver.finish()
    driver.turn()
    assert driver.is_right("right", [2, 1])
    for name, count in (("cancelled", 3), ("late", 4), ("fails", 0)):
        reasons = [update.finish_reason for update in driver.updates if update.seq_id == name]
        assert reasons == [None] * count + [driver.last(name).finish_reason]
        assert reasons[-1] in ("cancelled", "error")


def test_another_model_takes_the_place_of_one_that_sleeps() -> None:
    driver = Driver()
    driver.submit("a", [1, 2, 3], 20)
    driver.turn(2)
    driver.core.sleep()
    driver.turn()
    order = driver.core.reload(driver.new, SchedulerConfig(4, None, 40))
    driver.turn()
    order.result(timeout=0)
    error = driver.last("a").error
    assert error is not None
    assert error.code is ErrorCode.UNAVAILABLE
    driver.submit("b", [1, 2, 3])
    driver.finish()
    assert driver.is_right("b", [1, 2, 3])
    assert len(driver.executors) == 2


def test_orders_to_a_loop_that_has_ended_do_not_hang() -> None:
    driver = Driver()
    driver.core.stop()
    order = driver.core.sleep()
    driver.core.run(lambda _: None)
    with pytest.raises(EngineError, match="stopped"):
        order.result(timeout=0)
    with pytest.raises(EngineError, match="stopped"):
        driver.core.wake()


def test_a_smaller_cache_after_a_restart_refuses_what_no_longer_fits() -> None:
    driver = Driver()
    driver.submit("big", [1] * 30, 9)
    driver.submit("small", [1, 2, 3])
    driver.turn(2)
    small = WorkerInfo(num_blocks=5, token_budget=32, bytes_per_token=1, dtype="none", device={})
    new = driver.new

    def shrunk() -> ToyExecutor:
        executor = new()
        executor.info, executor.worker = small, ToyWorker(5, 4)
        return executor

    driver.core._launcher._new_executor = shrunk
    driver.core._broken = RuntimeError("broken")
    driver.finish()
    error = driver.last("big").error
    assert error is not None
    assert error.code is ErrorCode.RESOURCE_EXHAUSTED
    assert driver.is_right("small", [1, 2, 3])
    assert driver.core.scheduler.blocks.num_blocks == 5


def _cannot() -> None:
    raise OSError("cannot")
