"""What a function that raises does to its job (SPEC X12, K2): operator, user's line and record are named."""

from __future__ import annotations

import errno
import inspect
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.common.errors import NotRunningError, PipelineError
from sage.core.api import LocalEnvironment
from sage.core.api.function import FunctionContext, MapFunction, ProcessContext, SinkFunction
from sage.core.checkpoint.storage import CheckpointStorage
from sage.core.runtime.local.job import LocalJob
from sage.llm import UnifiedInferenceClient

HERE = pathlib.Path(__file__).name


def failure(env: LocalEnvironment) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        env.submit()
    return caught.value


def line_of(function: Any, offset: int = 1) -> str:
    """`file:line` of a line in a function's body."""
    return f"{HERE}:{inspect.getsourcelines(function)[1] + offset}"


def divide(x: int) -> float:
    return 10 / x


@pytest.mark.spec("X12")
@pytest.mark.parametrize("parallelism", [1, 3])
def test_the_message_names_operator_line_and_record(parallelism: int) -> None:
    env = LocalEnvironment("test")
    env.from_collection([5, 0, 2]).map(divide, name="divide", parallelism=parallelism).print()
    error = failure(env)
    assert "'divide'" in error.title
    assert line_of(divide) in error.title
    assert "ZeroDivisionError: division by zero at record 0" in error.cause
    assert f"added at {HERE}" in error.hint.replace(str(pathlib.Path(__file__).parent) + "/", "")
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert error.details["operator"] == "divide"


def test_a_builtin_has_no_line_of_its_own() -> None:
    """Then the line at which the operator was added is named."""
    env = LocalEnvironment("test")
    env.from_collection(["1", "x"]).map(int).print()
    error = failure(env)
    assert HERE in error.title
    assert "record 'x'" in error.cause


def test_what_came_before_is_out() -> None:
    """Records before the failing one have gone all the way, as in a loop."""
    out: list[float] = []
    env = LocalEnvironment("test")
    env.from_collection([5, 2, 0, 1]).map(divide).sink(out.append)
    failure(env)
    assert out == [2.0, 5.0]


def test_the_counters_are_right_after_a_failure() -> None:
    env = LocalEnvironment("test")
    env.from_collection([5, 2, 0, 1]).map(lambda x: x).map(divide).map(abs).sink(lambda x: None)
    handle = env.submit(block=False)
    with pytest.raises(PipelineError):
        handle.wait()
    rows = [(row.operator, row.records_in, row.records_out, row.errors) for row in handle.metrics().operators]
    assert rows == [
        ("from_collection", 3, 3, 0),
        ("map", 3, 3, 0),
        ("map-2", 3, 2, 1),
        ("map-3", 2, 2, 0),
        ("sink", 2, 2, 0),
    ]
    assert handle.status() == "failed"


def test_the_counters_of_branches_after_a_failure() -> None:
    """A record that failed in one branch did not come to the ones after it."""
    env = LocalEnvironment("test")
    stream = env.from_collection([5, 0])
    stream.map(lambda x: x, name="before").sink(lambda x: None, name="out-1")
    stream.map(divide, name="fails").sink(lambda x: None, name="out-2")
    stream.map(lambda x: x, name="after").filter(lambda x: True, name="kept").sink(lambda x: None, name="out-3")
    handle = env.submit(block=False)
    with pytest.raises(PipelineError):
        handle.wait()
    rows = {row.operator: (row.records_in, row.records_out) for row in handle.metrics().operators}
    assert rows["from_collection"] == rows["before"] == rows["out-1"] == (2, 2)
    assert rows["fails"] == (2, 1)
    assert rows["out-2"] == rows["after"] == rows["kept"] == rows["out-3"] == (1, 1)


def test_every_kind_of_operator_is_named() -> None:
    def boom(*_: Any) -> Any:
        raise ValueError("boom")

    def late(x: int) -> Iterator[int]:
        yield x
        raise ValueError("boom")

    def process(x: int, context: ProcessContext, out: Any) -> None:
        raise ValueError("boom")

    def build(name: str, env: LocalEnvironment) -> None:
        stream = env.from_collection([1, 1])
        builders: dict[str, Any] = {
            "filter": lambda: stream.filter(boom),
            "flat_map": lambda: stream.flat_map(late),
            "reduce": lambda: stream.reduce(boom),
            "process": lambda: stream.process(process),
            "key_by": lambda: stream.key_by(boom).map(lambda x: x),
            "sink": lambda: stream.sink(boom),
        }
        builders[name]()

    for parallelism in (1, 2):
        for name in ("filter", "flat_map", "reduce", "process", "key_by", "sink"):
            env = LocalEnvironment("test", {"parallelism": parallelism})
            build(name, env)
            error = failure(env)
            assert f"'{name}'" in error.title
            assert "ValueError: boom" in error.cause


def test_a_key_that_has_no_stable_value_is_refused() -> None:
    class Thing:
        pass

    env = LocalEnvironment("test", {"parallelism": 2})
    env.from_collection([1]).key_by(lambda x: Thing()).map(lambda x: x).print()
    error = failure(env)
    assert "'key_by'" in error.title
    assert "Thing cannot be a key" in error.cause
    assert error.cause.endswith("at record 1")
    assert "return a str, a number" in error.hint


def test_an_unhashable_key_is_the_key_selectors_fault() -> None:
    env = LocalEnvironment("test")
    env.from_collection([1]).key_by(lambda x: [x]).reduce(lambda a, b: a).print()  # type: ignore[type-var]
    error = failure(env)
    assert "'key_by'" in error.title
    assert "unhashable" in error.cause


def test_a_string_from_flat_map_is_refused() -> None:
    env = LocalEnvironment("test")
    env.from_collection(["abc"]).flat_map(lambda x: x).print()
    assert "needs a list of records" in failure(env).cause


def test_a_source_that_raises() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    out: list[int] = []
    env = LocalEnvironment("test")
    env.from_source(source, name="reader").sink(out.append)
    error = failure(env)
    assert "'reader'" in error.title
    assert line_of(source, 2) in error.title
    assert error.cause == "OSError: gone in the source"
    assert out == [1]


@pytest.mark.parametrize("phase", ["open", "close", "flush"])
def test_open_close_and_flush_may_fail(phase: str) -> None:
    closed = []

    class Fails(SinkFunction[int]):
        def open(self, context: FunctionContext) -> None:
            self.fail("open")

        def execute(self, value: int) -> None:
            """Takes it."""

        def flush(self) -> None:
            self.fail("flush")

        def close(self) -> None:
            closed.append(1)
            self.fail("close")

        def fail(self, where: str) -> None:
            if where == phase:
                raise RuntimeError("no")

    env = LocalEnvironment("test")
    env.from_collection([1]).sink(Fails, name="fails")
    error = failure(env)
    assert "'fails'" in error.title
    assert f"RuntimeError: no in {phase}()" in error.cause
    assert closed == [1]


def test_functions_are_closed_when_another_fails() -> None:
    closed = threading.Event()

    class Closes(MapFunction[int, int]):
        def execute(self, value: int) -> int:
            return value

        def close(self) -> None:
            closed.set()

    env = LocalEnvironment("test")
    env.from_collection([0]).map(Closes).map(divide, parallelism=2).print()
    failure(env)
    assert closed.is_set()


def test_a_failure_stops_an_endless_source() -> None:
    def endless() -> Iterator[int]:
        number = 3
        while True:
            yield number
            number -= number > 0

    env = LocalEnvironment("test", {"chaining": False, "parallelism": 2})
    env.from_source(endless).map(divide).sink(lambda x: None)
    assert "ZeroDivisionError" in failure(env).cause


def test_an_error_of_sage_stays_the_cause() -> None:
    """So that the command line can say `sage llm serve` when the gateway is down."""

    def ask(x: int) -> int:
        raise NotRunningError("The gateway is not running", hint="sage llm serve")

    env = LocalEnvironment("test")
    env.from_collection([1]).map(ask).print()
    assert isinstance(failure(env).__cause__, NotRunningError)


def test_the_users_line_is_named_and_not_ours_below_it(free_port: Callable[[], int]) -> None:
    """Also in a checkout, where our own code lies in ordinary folders."""
    client = UnifiedInferenceClient.create(f"http://127.0.0.1:{free_port()}")

    def ask(text: str) -> Any:
        return client.embed([text])

    env = LocalEnvironment("test")
    env.from_collection(["x"]).map(ask).print()
    assert line_of(ask) in failure(env).title
    client.close()


def test_a_class_that_cannot_be_made_is_named() -> None:
    class Broken(MapFunction[int, int]):
        def __init__(self) -> None:
            raise RuntimeError("no key")

        def execute(self, value: int) -> int:
            return value

    env = LocalEnvironment("test")
    env.from_collection([1]).map(Broken).print()
    error = failure(env)
    assert "map cannot run this function" in error.title
    assert "Broken() raised RuntimeError: no key" in error.cause
    assert line_of(Broken.__init__) in error.hint


def test_the_advice_of_an_error_of_sage_is_kept() -> None:
    class Lookup(MapFunction[int, int]):
        def execute(self, value: int) -> int:
            return int(self.call_service["stroe"].get(value))

    env = LocalEnvironment("test")
    env.register_service("store", dict)
    env.from_collection([1]).map(Lookup).print()
    error = failure(env)
    assert "did you mean 'store'?" in error.hint
    assert line_of(Lookup.execute) in error.hint


@pytest.mark.parametrize("where", ["source", "map", "open"])
def test_exit_inside_a_pipeline_fails_the_job(where: str) -> None:
    """It neither hangs the job nor ends the program."""

    def leave(*_: Any) -> Any:
        raise SystemExit(3)

    class Opens(MapFunction[int, int]):
        def open(self, context: FunctionContext) -> None:
            leave()

        def execute(self, value: int) -> int:
            return value

    env = LocalEnvironment("test", {"parallelism": 2})
    stream = env.from_source(leave) if where == "source" else env.from_collection([1, 2])
    stream.map(Opens if where == "open" else leave).print()
    assert "exit(3)" in failure(env).cause


def test_more_tasks_than_the_machine_gives_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        started.append(thread.name)
        if len([name for name in started if name.startswith("many/")]) > 12:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    env = LocalEnvironment("many", {"parallelism": 50})
    env.from_collection(range(100)).map(lambda x: x).sink(lambda x: None)
    error = failure(env)
    assert "51 tasks" in error.title
    assert "lower the parallelism" in error.hint


def test_a_huge_record_is_shown_short() -> None:
    env = LocalEnvironment("test")
    env.from_collection([{"key": ["x" * 1_000_000] * 1000}]).map(lambda x: x["no"]).print()
    assert len(failure(env).cause) < 300


def test_odd_names_are_only_names() -> None:
    env = LocalEnvironment("test 'x'")
    env.from_collection([0]).map(divide, name='a"b\n\0→').print(name="{}" + "'" * 3)
    assert "ZeroDivisionError" in failure(env).cause


def test_a_record_that_cannot_be_shown() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

        def __truediv__(self, other: int) -> float:
            return 1 / 0

    env = LocalEnvironment("test")
    env.from_collection([Shy()]).map(lambda x: x / 1).print()
    assert "Shy instance" in failure(env).cause


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def mute(record: Any) -> Any:
    raise MuteError


@pytest.mark.timeout(30)
def test_an_exception_that_cannot_be_shown() -> None:
    """The job fails with the exception's type; nobody waits for it for ever."""
    env = LocalEnvironment("test")
    env.from_collection([0]).map(mute).print()
    assert failure(env).cause == "MuteError at record 0"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("broken", ["prune", "begin"])
def test_a_fault_below_the_job_ends_it(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may raise anything, in the thread that everybody waits for."""

    def raises(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(CheckpointStorage, broken, raises)
    env = LocalEnvironment("test", {"checkpoint.interval": "1ms"})
    env.from_collection(range(10)).sink(lambda n: None)
    error = failure(env)
    assert "the disk is broken" in str(error)


@pytest.mark.timeout(30)
def test_a_report_that_raises_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("no report")

    monkeypatch.setattr(LocalJob, "_report", raises)
    env = LocalEnvironment("test")
    env.from_generator(lambda n: n).sink(lambda n: None)
    assert "no report" in str(failure(env))
