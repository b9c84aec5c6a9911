"""sage.core.testing: what users test their pipelines with, and we ours."""

import doctest
import importlib
import pickle
import pkgutil
from typing import Any

import pytest

import sage.core.testing
from sage.common.errors import PipelineError
from sage.common.home import SageHome
from sage.core.api import (
    KeyedCoProcessFunction,
    KeyedProcessFunction,
    LocalEnvironment,
    OutputTag,
    ValueStateDescriptor,
)
from sage.core.api.windows import TumblingProcessingTimeWindows
from sage.core.runtime import session
from sage.core.testing import (
    ABORT,
    END,
    PAUSE,
    ManualClock,
    MarkedSource,
    OperatorHarness,
    assert_stream,
    collect_stream,
    virtual_time,
)

MODULES = [name for _, name, _ in pkgutil.walk_packages(sage.core.testing.__path__, "sage.core.testing.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    names = {exported: getattr(sage.core.testing, exported) for exported in sage.core.testing.__all__}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert (failed, tried > 0) == (0, True)


class Both(KeyedCoProcessFunction[Any, Any, Any, Any]):
    """Pairs the last of one side with each of the other."""

    def open(self, context: Any) -> None:
        self.left = context.get_state(ValueStateDescriptor("left"))

    def process_element1(self, value: Any, context: Any, out: Any) -> None:
        self.left.update(value)
        context.output(OutputTag("seen"), value)

    def process_element2(self, value: Any, context: Any, out: Any) -> None:
        out.collect((self.left.value(), value))


def both(first: Any, second: Any) -> Any:
    return first.connect(second).key_by(lambda v: v[0], lambda v: v[0]).process(Both())


@pytest.mark.parametrize("state", ["memory", "rocksdb"])
def test_an_operator_with_two_inputs_keeps_its_state_over_restarts(state: str) -> None:
    if state == "rocksdb":
        pytest.importorskip("rocksdict", reason="rocksdict is not installed")
    harness = OperatorHarness.of(both, state=state)
    assert harness.process(["a1", "b1"]) == []
    harness.restart()
    assert [record for record, _ in harness.process(["a2", "b2"], port=1)] == [("a1", "a2"), ("b1", "b2")]
    assert [record for record, _ in harness.side["seen"]] == ["a1", "b1"]
    harness.close()


def test_subtasks_share_what_one_had() -> None:
    whole = OperatorHarness.of(both)
    keys = [f"{chr(97 + n)}1" for n in range(20)]
    whole.process(keys)
    snapshot = whole.snapshot()
    parts = [OperatorHarness.of(both, subtask=number, parallelism=2, restored=snapshot) for number in range(2)]
    held = [sorted(part.context.keyed.table("left", "value").keys()) for part in parts if part.context.keyed]
    assert sorted(held[0] + held[1]) == sorted(key[0] for key in keys)
    assert all(held)


def test_processing_timers_fire_at_their_times() -> None:
    class Ticks(KeyedProcessFunction[Any, Any, Any]):
        def process_element(self, value: Any, context: Any, out: Any) -> None:
            context.timer_service().register_processing_time_timer(
                context.timer_service().current_processing_time() + value
            )

        def on_timer(self, timestamp: int, context: Any, out: Any) -> None:
            out.collect((timestamp, context.timer_service().current_processing_time()))

    harness = OperatorHarness.of(lambda stream: stream.key_by(lambda v: v).process(Ticks()), clock=ManualClock(100))
    harness.process([50, 10])
    assert harness.time(120) == [((110, 110), harness.output[0][1])]
    assert [record for record, _ in harness.time(500)] == [(150, 150)]
    assert harness.clock.now_ms() == 500


def test_what_is_no_operator_is_refused() -> None:
    with pytest.raises(PipelineError, match="no operator of its own"):
        OperatorHarness.of(lambda stream: stream.map(str))


def test_a_source_ends_at_its_mark_and_goes_on_behind_it(home: SageHome) -> None:
    source: MarkedSource[int] = MarkedSource([1, 2, END, 3])

    def run(restore: str | None) -> list[int]:
        with session.use(session.Session(restore=restore)):
            env = LocalEnvironment("ends", {"checkpoint": {"interval": "1h"}})
            stream = env.from_source(source, name="items").key_by(lambda n: 0).reduce(lambda a, b: a + b)
            return collect_stream(stream)

    assert run(None) == [1, 3]
    assert run("latest") == [6]
    assert run("latest") == []


def test_a_crash_behind_a_checkpoint_goes_on_from_it(home: SageHome) -> None:
    source: MarkedSource[int] = MarkedSource([1, 2, PAUSE, 3, ABORT, 4])
    env = LocalEnvironment("crash", {"restart": {"attempts": 1, "delay": 0}, "checkpoint": {"interval": "1h"}})
    out: list[int] = []
    env.from_source(source).key_by(lambda n: 0).reduce(lambda a, b: a + b).sink(out.append)
    handle = env.submit(block=False)
    source.wait_until_paused()
    handle.savepoint(timeout=30)
    with virtual_time():
        source.proceed()
    handle.wait(30)
    assert handle.restarts == 1
    assert out[-1] == 10


def test_a_checkpoint_comes_when_the_clock_says_so(home: SageHome) -> None:
    source: MarkedSource[int] = MarkedSource([1, PAUSE, 2])
    with virtual_time(ManualClock(5)) as clock:
        env = LocalEnvironment("clock", {"checkpoint": {"interval": "10m"}})
        env.from_source(source).sink(lambda n: None)
        handle = env.submit(block=False)
        source.wait_until_paused()
        assert handle.checkpoints() == []
        clock.advance("11m")
        for _ in range(3000):
            if any(stats.state == "completed" for stats in handle.checkpoints()):
                break
            handle._job.wait(0.01)
        assert [stats.state for stats in handle.checkpoints()] == ["completed"]
        source.proceed()
        handle.wait(30)


def test_resuming_a_source_that_runs_is_a_mistake() -> None:
    source: MarkedSource[int] = MarkedSource([1, PAUSE])
    with pytest.raises(RuntimeError, match="wait_until_paused"):
        source.proceed()
    with pytest.raises(TimeoutError):
        source.wait_until_paused(timeout=0)
    assert pickle.loads(pickle.dumps(source)).items == [1, PAUSE]


class TestAssertStream:
    def test_records_that_cannot_be_hashed(self) -> None:
        stream = LocalEnvironment("t").from_collection([[1], [2], [1]])
        assert_stream(stream, [[1], [1], [2]], ordered=False)
        with pytest.raises(AssertionError, match=r"missing: \[3\]"):
            assert_stream(LocalEnvironment("t").from_collection([[1]]), [[1], [3]], ordered=False)

    def test_the_order_counts_unless_it_does_not(self) -> None:
        assert_stream(LocalEnvironment("t").from_collection([2, 1]), [1, 2], ordered=False)
        with pytest.raises(AssertionError, match="first difference at 0: got 2, expected 1"):
            assert_stream(LocalEnvironment("t").from_collection([2, 1]), [1, 2])
        with pytest.raises(AssertionError, match="got the end, expected 1"):
            assert_stream(LocalEnvironment("t").from_collection([1]), [1, 1])

    def test_the_pipelines_own_failure_is_shown(self) -> None:
        with pytest.raises(PipelineError, match="ZeroDivisionError"):
            assert_stream(LocalEnvironment("t").from_collection([0]).map(lambda n: 1 // n), [])

    def test_a_pipeline_that_does_not_end_is_aborted(self) -> None:
        source: MarkedSource[int] = MarkedSource([1, PAUSE])
        with pytest.raises(TimeoutError):
            assert_stream(LocalEnvironment("t").from_source(source), [1], timeout=0.05)


def test_windows_of_processing_time_go_by_the_virtual_clock() -> None:
    source: MarkedSource[int] = MarkedSource([1, 2, PAUSE, 3])
    with virtual_time(ManualClock(0)) as clock:
        env = LocalEnvironment("windows")
        window = TumblingProcessingTimeWindows.of("1m")
        out: list[int] = []
        env.from_source(source).key_by(lambda n: 0).window(window).reduce(lambda a, b: a + b).sink(out.append)
        handle = env.submit(block=False)
        source.wait_until_paused()
        clock.advance("1m")
        source.proceed()
        handle.wait(30)
    assert out == [3]  # at the end of the stream processing time has not ended
