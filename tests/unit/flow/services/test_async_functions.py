"""Async functions as operators (SPEC K2): many in flight, order, deadlines, retries, errors, checkpoints."""

from __future__ import annotations

import asyncio
import inspect
import json
import pathlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sage.common.errors import ConfigError, PipelineError
from sage.core.api import LocalEnvironment, OutputTag
from sage.core.api.function import AsyncFunction, FunctionContext, MapFunction
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.time import WatermarkStrategy

pytestmark = pytest.mark.spec("K2", "K9")

HERE = pathlib.Path(__file__).name


class Gate:
    """Lets calls pass one by one, in the order that the test gives; counts how many are inside."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.most = 0
        self._opened: dict[int, asyncio.Event] = {}
        self._passed: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()

    async def __call__(self, number: int) -> int:
        self._loop = asyncio.get_running_loop()
        with self._changed:
            event = self._opened.setdefault(number, asyncio.Event())
            self.inside.append(number)
            self.most = max(self.most, len(self.inside))
            self._changed.notify_all()
        await event.wait()
        with self._changed:
            self.inside.remove(number)
            self._passed.add(number)
            self._changed.notify_all()
        return number

    def wait_for(self, *numbers: int) -> None:
        """Until exactly these are inside."""
        with self._changed:
            assert self._changed.wait_for(lambda: sorted(self.inside) == sorted(numbers), 10), self.inside

    def let(self, number: int) -> None:
        """Let that one go, and wait until it has."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._opened[number].set)
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._passed, 10)


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


async def is_odd(value: int) -> bool:
    return value % 2 == 1


async def twice(value: int) -> list[int]:
    return [value, value]


async def counted(value: int) -> AsyncIterator[int]:
    for number in range(value):
        yield number


async def nothing(value: int) -> None:
    return None


def ran(build: Any, records: Any = range(5), **config: Any) -> list[Any]:
    env, out = LocalEnvironment("async", config), []  # type: ignore[var-annotated]
    build(env.from_collection(records)).sink(out.append)
    env.submit()
    return out


class TestOperators:
    def test_map(self) -> None:
        assert ran(lambda s: s.map(double)) == [0, 2, 4, 6, 8]

    def test_filter(self) -> None:
        assert ran(lambda s: s.filter(is_odd)) == [1, 3]

    def test_flat_map_of_a_list_of_nothing_and_of_a_generator(self) -> None:
        assert ran(lambda s: s.flat_map(twice), [1, 2]) == [1, 1, 2, 2]
        assert ran(lambda s: s.flat_map(nothing)) == []
        assert ran(lambda s: s.flat_map(counted), [2, 3]) == [0, 1, 0, 1, 2]

    def test_process_with_side_output_and_time(self) -> None:
        odd: OutputTag[Any] = OutputTag("odd")

        async def split(value: int, context: Any, out: Any) -> None:
            await asyncio.sleep(0)
            if value % 2:
                context.output(odd, (value, context.timestamp()))
            else:
                out.extend([value, context.key])

        env, evens, odds = LocalEnvironment("async"), [], []  # type: ignore[var-annotated]
        timed = env.from_collection([1, 2, 3]).assign_timestamps_and_watermarks(
            WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value * 10)
        )
        main = timed.process(split)
        main.sink(evens.append)
        main.get_side_output(odd).sink(odds.append)
        env.submit()
        assert evens == [2, None]
        assert odds == [(1, 10), (3, 30)]

    def test_methods_of_function_classes(self) -> None:
        class Asks(MapFunction[int, int]):
            def open(self, context: FunctionContext) -> None:
                self.step = 10

            async def execute(self, value: int) -> int:
                return value + self.step

        class Invoked(AsyncFunction[int, int]):
            async def async_invoke(self, value: int) -> int:
                return -value

        assert ran(lambda s: s.map(Asks).async_map(Invoked)) == [-10, -11, -12, -13, -14]

    def test_what_gives_something_to_wait_for(self) -> None:
        def soon(value: int) -> Future[int]:
            future: Future[int] = Future()
            future.set_result(value + 1)
            return future

        assert ran(lambda s: s.async_map(soon).async_map(lambda value: double(value))) == [2, 4, 6, 8, 10]

    def test_many_operators_share_one_thread_that_ends_with_the_job(self) -> None:
        threads: set[str] = set()

        async def seen(value: int) -> int:
            threads.add(threading.current_thread().name)
            return value

        assert ran(lambda s: s.map(seen).rebalance().map(seen, parallelism=3).map(seen), parallelism=2) != []
        assert len(threads) == 1
        assert not [thread for thread in threading.enumerate() if thread.name in threads]

    def test_parallel_subtasks(self) -> None:
        assert sorted(ran(lambda s: s.map(double, parallelism=3), range(1000))) == [2 * n for n in range(1000)]


class TestOrder:
    @pytest.mark.parametrize(("ordered", "expected"), [(True, [0, 1, 2]), (False, [2, 0, 1])])
    def test_results_keep_their_order_or_go_on_as_they_come(self, ordered: bool, expected: list[int]) -> None:
        gate, out = Gate(), []  # type: ignore[var-annotated]
        env = LocalEnvironment("async")
        env.from_collection(range(3)).async_map(gate, ordered=ordered).sink(out.append)
        job = env.submit(block=False)
        gate.wait_for(0, 1, 2)
        for number in (2, 0, 1):
            gate.let(number)
            if not ordered:
                _until(lambda number=number: number in out)
        job.wait()
        assert out == expected

    @pytest.mark.parametrize("ordered", [True, False])
    def test_no_result_passes_a_watermark(self, ordered: bool) -> None:
        """A result that is overtaken by the watermark would be late in the window behind it."""
        gate, out = Gate(), []  # type: ignore[var-annotated]
        env = LocalEnvironment("async")
        events: Any = env.from_collection([1, 2, 11, 12, 21]).assign_timestamps_and_watermarks(
            WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value)
        )
        from sage.core.api.windows import TumblingEventTimeWindows

        windowed = events.async_map(gate, ordered=ordered).key_by(lambda value: 0)
        windowed.window(TumblingEventTimeWindows.of(10)).aggregate(_Sum).sink(out.append)
        job = env.submit(block=False)
        gate.wait_for(1, 2, 11, 12, 21)
        for number in (21, 12, 2, 11, 1):
            gate.let(number)
        job.wait()
        assert out == [3, 23, 21]

    def test_capacity_bounds_what_runs_at_a_time(self) -> None:
        gate, out = Gate(), []  # type: ignore[var-annotated]
        env = LocalEnvironment("async")
        env.from_collection(range(6)).async_map(gate, capacity=2).sink(out.append)
        job = env.submit(block=False)
        for number in range(6):
            gate.wait_for(*range(number, min(6, number + 2)))
            gate.let(number)
        job.wait()
        assert gate.most == 2
        assert out == list(range(6))

    def test_the_source_waits_when_nothing_is_answered(self) -> None:
        gate, read = Gate(), []

        def numbers() -> Any:
            for number in range(10_000):
                read.append(number)
                yield number

        env = LocalEnvironment("async", {"buffer.size": 8})
        env.from_source(numbers).async_map(gate, capacity=3).sink(lambda value: None)
        job = env.submit(block=False)
        gate.wait_for(0, 1, 2)
        _until(lambda: len(read) == len(read[:]) and len(read) >= 4)
        threading.Event().wait(0.1)
        assert len(read) < 200
        job.abort()


class TestTimeAndFailure:
    def test_a_call_that_takes_too_long_fails_the_job_with_its_record(self) -> None:
        async def never(value: int) -> int:
            await asyncio.Event().wait()
            return value

        with pytest.raises(PipelineError, match="'slow' failed") as caught:
            ran(lambda s: s.async_map(never, timeout="20ms", name="slow"), [41])
        assert "TimeoutError: no result within 0.02 s at record 41" in (caught.value.cause or "")

    def test_a_function_may_answer_for_what_took_too_long(self) -> None:
        class Sometimes(AsyncFunction[int, str]):
            async def async_invoke(self, value: int) -> str:
                if value == 1:
                    await asyncio.Event().wait()
                return "answered"

            def timeout(self, value: int) -> str:
                return f"gave up on {value}"

        assert ran(lambda s: s.async_map(Sometimes(), timeout="50ms"), [0, 1, 2]) == [
            "answered",
            "gave up on 1",
            "answered",
        ]

    def test_the_message_names_operator_line_and_record(self) -> None:
        async def divide(value: int) -> float:
            await asyncio.sleep(0)
            return 10 / value

        with pytest.raises(PipelineError) as caught:
            ran(lambda s: s.map(divide, name="divide"), [5, 0, 2])
        line = inspect.getsourcelines(divide)[1] + 2
        assert "'divide'" in caught.value.title
        assert f"{HERE}:{line}" in caught.value.title
        assert "ZeroDivisionError: division by zero at record 0" in (caught.value.cause or "")

    @pytest.mark.parametrize("ordered", [True, False])
    def test_poison_records_are_left_out_where_the_job_is_to_go_on(self, ordered: bool, tmp_path: Path) -> None:
        async def divide(value: int) -> float:
            await asyncio.sleep(0)
            return 10 / value

        letters = tmp_path / "letters.jsonl"
        out = ran(
            lambda s: s.async_map(divide, ordered=ordered), [0, 5, 0, 2, 0, 0], **{"dead_letter.path": str(letters)}
        )
        assert sorted(out) == [2, 5]
        kept = [json.loads(line) for line in letters.read_text().splitlines()]
        assert [(letter["record"], letter["error"]) for letter in kept] == [(0, "ZeroDivisionError")] * 4

    def test_a_call_is_made_again_by_its_policy(self) -> None:
        calls: Counter[int] = Counter()

        async def flaky(value: int) -> int:
            calls[value] += 1
            if calls[value] < 3:
                raise ConnectionError(str(value))
            return value

        policy = RetryPolicy(3, delay="1ms", retry_on=(ConnectionError,))
        assert ran(lambda s: s.async_map(flaky, retry=policy), [7, 8]) == [7, 8]
        assert calls == {7: 3, 8: 3}
        calls.clear()
        with pytest.raises(PipelineError, match="failed"):
            ran(lambda s: s.async_map(flaky, retry=RetryPolicy(2, delay=1)), [7])
        assert calls[7] == 2

    def test_a_result_may_ask_for_another_attempt(self) -> None:
        calls: list[int] = []

        async def grows(value: int) -> int:
            calls.append(value)
            return len(calls)

        policy = RetryPolicy(5, delay=0, retry_if=lambda result: result < 3)
        assert ran(lambda s: s.async_map(grows, retry=policy), [1]) == [3]

    def test_the_deadline_is_for_all_attempts(self) -> None:
        async def fails(value: int) -> int:
            raise ConnectionError

        with pytest.raises(PipelineError) as caught:
            ran(lambda s: s.async_map(fails, timeout="30ms", retry=RetryPolicy(10**6, delay="1ms", multiplier=1)), [1])
        assert "TimeoutError" in (caught.value.cause or "")

    def test_an_abort_cancels_what_runs_before_close(self) -> None:
        ended: list[str] = []
        inside = threading.Event()

        class Waits(AsyncFunction[int, int]):
            async def async_invoke(self, value: int) -> int:
                inside.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append("call")
                return value

            def close(self) -> None:
                ended.append("close")

        env = LocalEnvironment("async")
        env.from_collection([1]).async_map(Waits).sink(lambda value: None)
        job = env.submit(block=False)
        assert inside.wait(10)
        job.abort()
        job.wait()
        _until(lambda: "close" in ended)
        assert ended == ["call", "close"]

    def test_mistakes_are_found_when_the_pipeline_is_built(self) -> None:
        stream: Any = LocalEnvironment("async").from_collection([1])
        with pytest.raises(PipelineError, match="capacity must be"):
            stream.async_map(double, capacity=0)
        with pytest.raises(PipelineError, match="timeout must be longer"):
            stream.async_map(double, timeout=0)
        with pytest.raises(PipelineError, match="timeout is no duration"):
            stream.async_map(double, timeout="soon")
        with pytest.raises(ConfigError, match="unknown fields"):
            stream.async_map(double, retry={"attempts": 3})
        with pytest.raises(PipelineError, match="is an async function") as caught:
            stream.key_by(double)
        assert HERE in caught.value.title

    def test_a_function_that_gives_nothing_to_wait_for(self) -> None:
        with pytest.raises(PipelineError, match="failed") as caught:
            ran(lambda s: s.async_map(lambda value: value), [1])
        assert "write `async def`, or use map()" in (caught.value.cause or "")


class _Sum:
    def create_accumulator(self) -> int:
        return 0

    def add(self, value: int, accumulator: int) -> int:
        return value + accumulator

    def get_result(self, accumulator: int) -> int:
        return accumulator

    def merge(self, accumulator: int, other: int) -> int:
        return accumulator + other


def _until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen within 10 s")
