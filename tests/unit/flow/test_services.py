"""Services of an environment (SPEC K9): one instance, three ways to call it, clear errors."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

from sage.common.errors import PipelineError, ServiceError
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction, SinkFunction


class Counter:
    """Counts how often it was made, called and closed."""

    made = 0
    closed = 0

    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        type(self).made += 1
        self.total = start
        self.step = step
        self._lock = threading.Lock()

    def add(self, times: int = 1) -> int:
        with self._lock:
            self.total += times * self.step
            return self.total

    def process(self, value: int) -> int:
        return value * 100

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture(autouse=True)
def fresh() -> None:
    Counter.made = Counter.closed = 0


@pytest.mark.spec("K9")
class TestCalls:
    def test_one_lazily_made_instance_for_all_tasks_and_jobs(self) -> None:
        class Count(MapFunction[int, int]):
            def execute(self, value: int) -> int:
                return int(self.call_service["counter"].add())

        with LocalEnvironment("services", {"parallelism": 3}) as env:
            env.register_service("counter", Counter, 10, step=2)
            env.register_service("unused", Counter)
            assert Counter.made == 0
            env.from_collection(range(50)).map(Count).sink(lambda x: None)
            env.submit()
            env.from_collection(range(50)).map(Count).sink(lambda x: None)
            env.submit()
            assert Counter.made == 1
            assert env.call_service["counter"].total == 10 + 2 * 100
            assert Counter.closed == 0
        assert Counter.closed == 1

    def test_the_three_ways_to_call(self) -> None:
        out: list[Any] = []

        class All(SinkFunction[int]):
            def execute(self, value: int) -> None:
                future = self.call_service_async("c", value)
                by_name = self.call_service_async["c"].add(3)
                assert isinstance(future, Future)
                out.append(self.call_service["c"].process(value))
                out.append(self.call_service("c", value))
                out.append(self.call_service("c", 2, method="add"))
                out.append(self.call_service("c", 2, method="process", timeout=10))
                out.append(self.call_service("c", times=1, method="add"))
                out.append(future.result(10))
                by_name.result(10)

        env = LocalEnvironment("services")
        env.register_service("c", lambda: Counter())
        env.from_collection([7]).sink(All)
        env.submit()
        assert out[0] == out[1] == out[5] == 700
        assert out[3] == 200
        assert env.call_service["c"].total == 6

    def test_a_plain_function_and_a_ready_object(self) -> None:
        env = LocalEnvironment("services")
        env.register_service("ready", {"a": 1})
        env.register_service("shout", lambda: str.upper)
        assert env.call_service["ready"]["a"] == 1
        assert env.call_service("shout", "x") == "X"

    def test_async_calls_run_at_the_same_time(self) -> None:
        barrier = threading.Barrier(4)

        class Meets:
            def process(self) -> int:
                return barrier.wait(10)

        class All(SinkFunction[int]):
            def execute(self, value: int) -> None:
                futures = [self.call_service_async("meets") for _ in range(4)]
                assert sorted(future.result(10) for future in futures) == [0, 1, 2, 3]

        env = LocalEnvironment("services")
        env.register_service("meets", Meets)
        env.from_collection([1]).sink(All)
        env.submit()

    @pytest.mark.parametrize(
        "call",
        [
            lambda function, value: function.call_service["single"].add(value),
            lambda function, value: function.call_service["single"](value),
            lambda function, value: function.call_service("single", value, method="add"),
            lambda function, value: function.call_service_async["single"].add(value).result(10),
        ],
        ids=["by name", "itself", "call", "async"],
    )
    def test_a_service_that_is_not_thread_safe_is_called_in_turns(self, call: Callable[[Any, int], int]) -> None:
        class Single:
            thread_safe = False
            calls = 0

            def add(self, value: int) -> int:
                before = self.calls
                time.sleep(0.001)  # another thread gets its chance
                self.calls = before + 1
                return value

            __call__ = add

        class Use(MapFunction[int, int]):
            def execute(self, value: int) -> int:
                return call(self, value)

        env = LocalEnvironment("services", {"parallelism": 4})
        env.register_service("single", Single)
        env.from_collection(range(50)).map(Use).sink(lambda x: None)
        env.submit()
        assert env.call_service["single"].calls == 50


@pytest.mark.spec("K9")
class TestErrors:
    def test_an_unknown_service_names_the_nearest(self) -> None:
        class Ask(MapFunction[int, int]):
            def execute(self, value: int) -> int:
                return int(self.call_service["conter"].add())

        env = LocalEnvironment("services")
        env.register_service("counter", Counter)
        env.from_collection([1]).map(Ask).print()
        with pytest.raises(PipelineError) as caught:
            env.submit()
        assert isinstance(caught.value.__cause__, ServiceError)
        assert "did you mean 'counter'" in caught.value.__cause__.hint

    def test_a_method_that_does_not_exist(self) -> None:
        env = LocalEnvironment("services")
        env.register_service("counter", Counter)
        with pytest.raises(ServiceError, match="no method 'ad'") as caught:
            env.call_service("counter", method="ad")
        assert "did you mean 'add'" in caught.value.hint

    def test_a_factory_that_fails(self) -> None:
        env = LocalEnvironment("services")
        env.register_service("bad", lambda: 1 / 0)
        env.register_service("none", lambda: None)
        with pytest.raises(ServiceError, match="could not be made: ZeroDivisionError"):
            env.call_service["bad"]
        with pytest.raises(ServiceError, match="returned None"):
            env.call_service["none"]

    def test_a_name_is_registered_once(self) -> None:
        env = LocalEnvironment("services")
        env.register_service("c", Counter)
        with pytest.raises(ServiceError, match="already"):
            env.register_service("c", Counter)
        with pytest.raises(ServiceError, match="needs a name"):
            env.register_service("", Counter)
        with pytest.raises(ServiceError, match="None cannot be called"):
            env.register_service("nothing", None)

    def test_a_call_has_a_deadline(self) -> None:
        never = threading.Event()
        env = LocalEnvironment("services")
        env.register_service("slow", lambda: never.wait)
        with pytest.raises(ServiceError, match=r"did not answer within 0\.02 s"):
            env.call_service("slow", 30, timeout=0.02)
        never.set()
        env.close()

    def test_a_call_that_hangs_does_not_hold_the_program(self) -> None:
        code = """
import subprocess
import sys
import threading
from sage.core.api import LocalEnvironment
env = LocalEnvironment("x")
env.register_service("slow", lambda: threading.Event().wait)
try:
    env.call_service("slow", timeout=0.05)
except Exception as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == "Service 'slow' did not answer within 0.05 s\n"

    def test_jobs_and_their_services_outlive_the_script(self) -> None:
        """A script that ends without waiting cuts nothing short."""
        code = """
import time
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction

class Ask(MapFunction):
    def execute(self, value):
        time.sleep(0.05)
        return self.call_service_async("shout", f"answer {value}").result()

env = LocalEnvironment("x")
env.register_service("shout", lambda: str.upper)
env.from_collection(range(5)).map(Ask).print()
env.submit(block=False)
del env
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == "".join(f"ANSWER {number}\n" for number in range(5))
        assert done.stderr == ""

    def test_services_exist_only_while_the_job_runs(self) -> None:
        class Early(MapFunction[int, int]):
            """Never opened."""

        with pytest.raises(ServiceError, match="not running"):
            Early().call_service["x"]

    def test_services_stay_open_until_a_job_in_the_background_has_ended(self) -> None:
        closed_at: list[int] = []

        class Kept(Counter):
            def close(self) -> None:
                closed_at.append(self.total)

        class Use(SinkFunction[int]):
            def execute(self, value: int) -> None:
                self.call_service["kept"].add()
                ready.set()
                go_on.wait(10)

        ready, go_on = threading.Event(), threading.Event()
        with LocalEnvironment("services") as env:
            env.register_service("kept", Kept)
            env.from_collection(range(50)).sink(Use)
            job = env.submit(block=False)
            assert ready.wait(10)
            threading.Timer(0.1, go_on.set).start()
        assert job.status() == "finished"
        assert closed_at == [50]

    def test_an_error_in_the_block_cancels_its_jobs(self) -> None:
        with suppress(ZeroDivisionError), LocalEnvironment("services") as env:
            env.from_source(itertools.count(), name="endless").sink(lambda x: None)
            job = env.submit(block=False)
            raise ZeroDivisionError
        assert job.status() == "cancelled"

    def test_a_close_that_fails_does_not_keep_others_open(self) -> None:
        class Bad:
            def close(self) -> None:
                raise OSError("stuck")

        env = LocalEnvironment("services")
        env.register_service("first", Counter)
        env.register_service("second", Bad)
        assert env.call_service["first"] is not None
        assert env.call_service["second"] is not None
        with pytest.raises(ServiceError, match="OSError: stuck"):
            env.close()
        assert Counter.closed == 1
