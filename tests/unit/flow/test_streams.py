"""Operators, functions and sources as users write them (SPEC K1, K2, K3)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sage.common.errors import PipelineError
from sage.core.api import DataStream, LocalEnvironment
from sage.core.api.function import (
    BaseFunction,
    BatchFunction,
    FilterFunction,
    FlatMapFunction,
    FunctionContext,
    KeyByFunction,
    MapFunction,
    ProcessContext,
    ProcessFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
    StopSignal,
)


def collected(stream: DataStream[Any]) -> list[Any]:
    """What comes out of a stream."""
    out: list[Any] = []
    stream.sink(out.append, parallelism=1)
    stream.env.submit()
    return out


def env(**config: Any) -> LocalEnvironment:
    return LocalEnvironment("test", config)


class Double(MapFunction[int, int]):
    def execute(self, value: int) -> int:
        return value * 2


class Add(MapFunction[int, int]):
    def __init__(self, number: int) -> None:
        self.number = number

    def process(self, value: int) -> int:
        return value + self.number

    def other(self, value: int) -> int:
        return value - self.number


@pytest.mark.spec("K3")
class TestFunctions:
    def test_a_class_and_an_instance(self) -> None:
        assert collected(env().from_collection([1, 2]).map(Double).map(Add(10))) == [12, 14]

    def test_a_bound_method_a_builtin_and_a_type(self) -> None:
        stream = env().from_collection(["1", "22"]).map(int).map(Add(1).other).map(str).map(len)
        assert collected(stream) == [1, 2]

    def test_a_class_without_our_base(self) -> None:
        class Plain:
            def process(self, value: int) -> int:
                return -value

        assert collected(env().from_collection([1]).map(Plain)) == [-1]  # type: ignore[arg-type]

    def test_a_callable_object_is_called(self) -> None:
        class Callable:
            def __call__(self, value: int) -> int:
                return value + 1

        assert collected(env().from_collection([1]).map(Callable())) == [2]

    def test_the_base_class_alone_is_enough(self) -> None:
        """As the documents write it: BaseFunction with `execute`, or with `process`, in a map."""

        class Step(BaseFunction):
            def execute(self, data: int) -> dict[str, int]:
                return {"hits": data}

        assert collected(env().from_collection([1]).map(Step())) == [{"hits": 1}]

    @pytest.mark.parametrize("parallelism", [1, 3])
    def test_open_and_close_frame_every_subtask(self, parallelism: int) -> None:
        calls: list[tuple[str, int, str]] = []
        lock = threading.Lock()

        class Counted(MapFunction[int, int]):
            def open(self, context: FunctionContext) -> None:
                with lock:
                    calls.append(("open", context.subtask_index, context.operator))
                assert context.parallelism == parallelism
                assert context.job_name == "test"

            def execute(self, value: int) -> int:
                assert self.context.operator == "counted"
                return value

            def close(self) -> None:
                with lock:
                    calls.append(("close", self.context.subtask_index, self.context.operator))

        stream = env().from_collection(range(10)).map(Counted, name="counted", parallelism=parallelism)
        assert sorted(collected(stream)) == list(range(10))
        subtasks = range(parallelism)
        assert sorted(calls) == sorted((what, i, "counted") for what in ("open", "close") for i in subtasks)

    def test_an_instance_is_copied_for_parallel_subtasks(self) -> None:
        class Last(MapFunction[int, int]):
            seen = 0

            def execute(self, value: int) -> int:
                self.seen += 1
                return self.seen

        out = collected(env().from_collection(range(8)).map(Last(), parallelism=4))
        assert sorted(out) == [1, 1, 1, 1, 2, 2, 2, 2]

    def test_an_instance_that_cannot_be_copied_says_so(self) -> None:
        class Locked(MapFunction[int, int]):
            def __init__(self) -> None:
                self.lock = threading.Lock()

            def execute(self, value: int) -> int:
                return value

        with pytest.raises(PipelineError, match="cannot run this function") as caught:
            collected(env().from_collection([1]).map(Locked(), parallelism=2))
        assert "pass the class Locked" in caught.value.hint

    def test_the_other_kinds(self) -> None:
        class Even(FilterFunction[int]):
            def execute(self, value: int) -> bool:
                return value % 2 == 0

        class Repeat(FlatMapFunction[int, str]):
            def execute(self, value: int) -> Iterator[str]:
                for _ in range(value):
                    yield str(value)

        class Length(KeyByFunction[str, int]):
            def execute(self, value: str) -> int:
                return len(value)

        class Join(ReduceFunction[str]):
            def reduce(self, accumulated: str, value: str) -> str:
                return accumulated + value

        stream = env().from_collection([1, 2, 3, 4]).filter(Even).flat_map(Repeat).key_by(Length).reduce(Join)
        assert collected(stream) == ["2", "22", "224", "2244", "22444", "224444"]

    def test_process_sees_the_key_and_puts_out_any_number(self) -> None:
        class Tell(ProcessFunction[str, str]):
            def process_element(self, value: str, context: ProcessContext, out: Any) -> None:
                out.collect(f"{context.key}:{value}")
                if value == "b":
                    out.extend(["again", "again"])

        stream = env().from_collection(["a", "b"]).key_by(str.upper).process(Tell)
        assert collected(stream) == ["A:a", "B:b", "again", "again"]

    def test_a_sink_is_flushed_when_the_stream_pauses_and_closed_at_the_end(self) -> None:
        written: list[int] = []
        paused, seen = threading.Event(), threading.Event()

        def source() -> Iterator[int]:
            yield 1
            assert seen.wait(10), "the sink was not flushed while the source waited"
            yield 2
            paused.set()

        class Buffered(SinkFunction[int]):
            def open(self, context: FunctionContext) -> None:
                self.held: list[int] = []

            def execute(self, value: int) -> None:
                self.held.append(value)

            def flush(self) -> None:
                written.extend(self.held)
                self.held.clear()
                if written:
                    seen.set()

        e = env()
        e.from_source(source).sink(Buffered)
        e.submit()
        assert written == [1, 2]


@pytest.mark.spec("K1")
class TestSources:
    def test_none_is_a_record(self) -> None:
        """None neither ends a stream nor is dropped."""
        assert collected(env().from_collection([None, 1, None])) == [None, 1, None]
        assert collected(env().from_collection([1, 2]).map(lambda x: None)) == [None, None]

    def test_an_empty_collection(self) -> None:
        assert collected(env().from_collection([]).map(Double)) == []

    @pytest.mark.parametrize("data", [[3, 1], (3, 1), range(3, 0, -2), {3: "x", 1: "y"}, iter([3, 1])])
    def test_from_collection_takes_any_iterable(self, data: Any) -> None:
        assert collected(env().from_collection(data)) == [3, 1]

    def test_a_list_is_read_as_it_was(self) -> None:
        data = [1, 2]
        stream = env().from_collection(data)
        data.append(3)
        assert collected(stream) == [1, 2]

    def test_from_batch_takes_a_list_a_function_and_a_batch_function(self) -> None:
        class Two(BatchFunction[int]):
            def open(self, context: FunctionContext) -> None:
                self.left = [7, 8]

            def execute(self) -> int | StopSignal:
                return self.left.pop(0) if self.left else StopSignal()

        assert collected(env().from_batch([1, 2])) == [1, 2]
        assert collected(env().from_batch(lambda: [3, 4])) == [3, 4]
        assert collected(env().from_batch(lambda: (i for i in (5, 6)))) == [5, 6]
        assert collected(env().from_batch(Two)) == [7, 8]
        assert collected(env().from_batch(Two())) == [7, 8]

    def test_a_source_function_ends_with_stop_signal_returned_or_raised(self) -> None:
        class Count(SourceFunction[int]):
            def __init__(self, raises: bool) -> None:
                self.raises, self.number = raises, 0

            def execute(self) -> Any:
                self.number += 1
                if self.number > 3 and self.raises:
                    raise StopSignal
                return self.number if self.number <= 3 else StopSignal("done")

        for raises in (True, False):
            assert collected(env().from_source(Count(raises))) == [1, 2, 3]

    def test_a_source_function_may_be_a_generator(self) -> None:
        class Words(SourceFunction[str]):
            def execute(self) -> Iterator[str]:
                yield from ("a", "b")

        assert collected(env().from_source(Words)) == ["a", "b"]

    def test_a_generator_may_raise_stop_signal(self) -> None:
        def numbers() -> Iterator[int]:
            yield 1
            raise StopSignal

        class Numbers(SourceFunction[int]):
            def execute(self) -> Iterator[int]:
                yield from numbers()

        for source in (numbers, Numbers):
            assert collected(env().from_source(source)) == [1]
        assert collected(env().from_batch(numbers)) == [1]

    def test_a_function_that_returns_an_iterator_is_called_once(self) -> None:
        assert collected(env().from_source(lambda: iter([1, 2]))) == [1, 2]

    def test_a_plain_function_is_called_for_each_record(self) -> None:
        left = [1, None, 2]
        assert collected(env().from_source(lambda: left.pop(0) if left else StopSignal)) == [1, None, 2]

    def test_a_source_opens_reads_and_closes_in_one_thread(self) -> None:
        threads: list[int] = []

        class Here(SourceFunction[int]):
            def open(self, context: FunctionContext) -> None:
                threads.append(threading.get_ident())

            def execute(self) -> Iterator[int]:
                threads.append(threading.get_ident())
                yield 1

            def close(self) -> None:
                threads.append(threading.get_ident())

        assert collected(env().from_source(Here)) == [1]
        assert len(threads) == 3
        assert len(set(threads)) == 1

    def test_a_parallel_source_reads_one_source_a_subtask(self) -> None:
        class Mine(SourceFunction[int]):
            def execute(self) -> Iterator[int]:
                yield self.context.subtask_index

        assert sorted(collected(env().from_source(Mine, parallelism=3))) == [0, 1, 2]

    def test_records_go_on_before_the_next_one_is_there(self) -> None:
        """A source that waits holds nothing back."""
        arrived = threading.Event()

        def source() -> Iterator[int]:
            yield from range(5000)
            assert arrived.wait(10), "the records before the pause were not processed"
            yield 5000

        e = env()
        e.from_source(source).sink(lambda x: arrived.set() if x == 4999 else None, parallelism=2)
        assert e.submit().metrics().records_out == 5001


@pytest.mark.spec("K2")
class TestBuilding:
    def test_wrong_functions_are_found_when_they_are_added(self) -> None:
        stream = env().from_collection([1])

        class Empty(MapFunction[int, int]):
            """Has no method."""

        class Needs(MapFunction[int, int]):
            def __init__(self, factor: int) -> None:
                self.factor = factor

            def execute(self, value: int) -> int:
                return value * self.factor

        cases: list[tuple[Any, str]] = [
            (42, "cannot be called"),
            (lambda: 1, "does not take 1 argument"),
            (lambda a, b: 1, "does not take 1 argument"),
            (Empty, "no method execute or process"),
            (Needs, "Needs cannot be made without arguments"),
        ]
        for function, message in cases:
            with pytest.raises(PipelineError, match=message) as caught:
                stream.map(function)
            assert "test_streams.py:" in caught.value.title

    def test_wrong_sources_are_found_when_they_are_added(self) -> None:
        cases: list[tuple[Any, Any]] = [
            (env().from_collection, 5),
            (env().from_collection, "abc"),
            (env().from_source, 5),
            (env().from_batch, 5),
        ]
        for build, wrong in cases:
            with pytest.raises(PipelineError, match="source cannot read this"):
                build(wrong)

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
    def test_parallelism_is_a_positive_whole_number(self, wrong: Any) -> None:
        with pytest.raises(PipelineError, match="parallelism"):
            env().from_collection([1]).map(Double, parallelism=wrong)
        with pytest.raises(PipelineError, match="parallelism"):
            env().from_source([1], parallelism=wrong)

    def test_reduce_without_keys_is_not_parallel(self) -> None:
        assert collected(env(parallelism=3).from_collection([1, 2, 3]).reduce(lambda a, b: a + b)) != []
        with pytest.raises(PipelineError, match="reduce without keys"):
            env().from_collection([1]).reduce(lambda a, b: a, parallelism=2)

    def test_nothing_runs_before_submit_and_only_once(self) -> None:
        e = env()
        seen: list[int | None] = []
        e.from_collection([1]).sink(seen.append)
        assert seen == []
        e.submit()
        with pytest.raises(PipelineError, match="nothing to run"):
            e.submit()
        assert seen == [1]

    def test_submit_of_one_pipeline_leaves_the_others(self) -> None:
        e = env()
        seen: list[int | None] = []
        first = e.from_collection([1]).sink(seen.append)
        e.from_collection([2]).sink(seen.append)
        e.submit(first)
        assert seen == [1]
        e.submit()
        assert seen == [1, 2]

    def test_submit_takes_only_its_own_pipelines(self) -> None:
        other = env().from_collection([1]).print()
        with pytest.raises(PipelineError, match="no pipeline of this environment"):
            env().submit(other)

    def test_union_refuses_streams_of_other_environments(self) -> None:
        with pytest.raises(PipelineError, match="different environments"):
            env().from_collection([1]).union(env().from_collection([2]))

    def test_a_stream_that_goes_nowhere_runs_and_is_pointed_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        e = env()
        seen: list[int | None] = []
        e.from_collection([1]).map(seen.append)
        e.submit()
        assert seen == [1]
        assert "go nowhere" in capsys.readouterr().err

    def test_both_spellings(self) -> None:
        stream = env().from_collection(["a b"]).flatmap(str.split).keyby(str.upper).map(str.upper)
        assert collected(stream) == ["A", "B"]


class TestPrint:
    def test_lines_are_plain_and_in_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        e = env()
        e.from_collection([1, None, "x"]).print("> ")
        e.submit()
        assert capsys.readouterr().out == "> 1\n> None\n> x\n"

    def test_the_builtin_as_a_sink(self, capsys: pytest.CaptureFixture[str]) -> None:
        e = env()
        e.from_collection([1, 2]).sink(print)
        e.submit()
        assert capsys.readouterr().out == "1\n2\n"

    def test_parallel_lines_stay_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        e = env(parallelism=4)
        e.from_collection(range(500)).print()
        e.submit()
        assert sorted(int(line) for line in capsys.readouterr().out.splitlines()) == list(range(500))
