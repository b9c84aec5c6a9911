"""Jobs in worker processes (`execution.runtime: processes`): results, errors, metrics and ends as on threads."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment, MapFunction, OutputTag
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import TumblingEventTimeWindows

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

TWO = {"execution.runtime": "processes", "execution.processes": 2, "parallelism": 2}


def environment(**more: Any) -> LocalEnvironment:
    """Underscores stand for dots."""
    return LocalEnvironment("workers", TWO | {key.replace("_", "."): value for key, value in more.items()})


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "sage.core.runtime.processes.worker" in " ".join(p.cmdline())]


@dataclass
class Sale:
    shop: str
    amount: int


class Tagged(MapFunction[int, tuple[int, int]]):
    """Every record with the number of the subtask and the process that had it."""

    def open(self, context: Any) -> None:
        self.subtask = context.subtask_index

    def map(self, value: int) -> tuple[int, int]:
        return self.subtask, os.getpid()


def everything(env: LocalEnvironment) -> None:
    """Keys, windows, a side output, a broadcast and records of a class, over several tasks."""
    odd: OutputTag[Sale] = OutputTag("odd")

    def split(value: int, context: Any, out: Any) -> None:
        if value % 2:
            context.output(odd, Sale(f"shop {value % 3}", value))
        else:
            out.collect(value)

    numbers = env.from_collection(range(2000)).assign_timestamps_and_watermarks(
        WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value: value)
    )
    even = numbers.rebalance().process(split)
    sales = even.get_side_output(odd)
    sales.key_by(lambda sale: sale.shop).reduce(lambda a, b: Sale(a.shop, a.amount + b.amount)).filter(
        lambda sale: sale.amount > 300_000
    ).map(lambda sale: f"sale {sale}").print()
    even.key_by(lambda value: value % 5).window(TumblingEventTimeWindows.of(500)).count().map(
        lambda count: f"count {count}"
    ).print()
    even.broadcast().filter(lambda value: value > 1990).map(lambda value: f"big {value}").print()


def test_the_same_results_as_on_threads(capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for runtime in ("threads", "processes"):
        env = environment(execution_runtime=runtime)
        everything(env)
        env.submit()
        lines = capsys.readouterr().out.splitlines()
        results.append(sorted(line for line in lines if not line.startswith("sale")))
        assert any(line.startswith("sale") for line in lines)
    assert results[0] == results[1]
    assert len(results[1]) > 20


def test_subtasks_are_dealt_over_the_workers_and_records_stay_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    env = environment(parallelism=1)
    env.from_collection(range(3000)).map(lambda value: (value, os.getpid())).rebalance().map(
        lambda pair: (*pair, os.getpid())
    ).print()
    handle = env.submit()
    rows = [eval(line) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(range(3000))
    first, second = {row[1] for row in rows}, {row[2] for row in rows}
    assert len(first) == len(second) == 1
    assert first | second | {os.getpid()} == {*first, *second, os.getpid()}
    assert len(first | second | {os.getpid()}) == 3
    assert not workers()
    metrics = handle.metrics()
    assert (metrics.records_in, metrics.records_out) == (3000, 3000)
    assert metrics.operators[-1].latency_p99 is None or metrics.operators[-1].latency_p99 < 60


def test_each_subtask_has_its_own_function(capsys: pytest.CaptureFixture[str]) -> None:
    env = environment()
    env.from_collection(range(100)).rebalance().map(Tagged).print()
    env.submit()
    seen = {eval(line) for line in capsys.readouterr().out.splitlines()}
    assert {subtask for subtask, _ in seen} == {0, 1}
    assert len({pid for _, pid in seen}) == 2


def test_a_failure_tells_operator_line_record_and_cause() -> None:
    env = environment()
    env.from_collection([4, 2, 0]).rebalance().map(lambda value: 8 // value, name="divide").sink(id)
    with pytest.raises(PipelineError, match=r"'divide' failed \(.*test_processes\.py:\d+\).*at record 0") as raised:
        env.submit()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert "in worker process" in raised.value.__cause__.__notes__[0]
    assert not workers()


def test_what_cannot_leave_the_process_is_told_with_its_line() -> None:
    env = environment()
    env.from_collection(value for value in range(3)).print()
    with pytest.raises(PipelineError, match=r"'from_collection' .*test_processes\.py:\d+.*generator") as raised:
        env.submit()
    assert "execution.runtime: threads" in raised.value.hint
    lock = threading.Lock()
    env = environment()
    env.from_collection([1]).map(lambda value: (value, lock.locked()), name="locks").print()
    with pytest.raises(PipelineError, match=r"'locks' .*test_processes\.py:\d+") as raised:
        env.submit()
    assert "open()" in raised.value.hint


def test_a_list_of_this_process_as_a_sink_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    env = environment()
    env.from_collection([1]).sink(seen.append)
    with pytest.raises(PipelineError, match=r"fills a list .*test_processes\.py:\d+") as raised:
        env.submit()
    assert "write_jsonl" in raised.value.hint
    env = environment()
    env.from_collection([1]).sink(lambda value: seen.append(value))
    env.submit()
    assert "fills 'seen' in its worker process" in capsys.readouterr().err


def test_functions_print_and_warnings_arrive(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    letters = tmp_path / "letters.jsonl"
    env = LocalEnvironment("letters", TWO | {"dead_letter.path": str(letters)})

    def half(value: int) -> float:
        if value == 7:
            print("seven comes")
        return value / (value - 3)

    env.from_collection(range(10)).rebalance().map(half, name="half").sink(lambda value: None)
    handle = env.submit()
    shown = capsys.readouterr()
    assert shown.out == "seven comes\n"
    assert "'half' raised ZeroDivisionError" in shown.err
    (letter,) = [json.loads(line) for line in letters.read_text().splitlines()]
    assert (letter["record"], letter["operator"]) == (3, "half")
    assert sum(row.errors for row in handle.metrics().operators) == 1


class Counter:
    """A service that holds what cannot be pickled."""

    def __init__(self, start: int) -> None:
        self.lock = threading.Lock()
        self.start = start

    def where(self, value: int) -> tuple[int, int]:
        with self.lock:
            return os.getpid(), self.start + value


class Ask(MapFunction[int, tuple[int, int]]):
    def map(self, value: int) -> tuple[int, int]:
        return self.call_service["counter"].where(value)  # type: ignore[no-any-return]


def test_each_worker_makes_its_own_services(capsys: pytest.CaptureFixture[str]) -> None:
    env = environment()
    env.register_service("counter", Counter, 100)
    env.from_collection(range(50)).rebalance().map(Ask).print()
    env.submit()
    rows = [eval(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(number for _, number in rows) == list(range(100, 150))
    assert len({pid for pid, _ in rows}) == 2


def test_a_savepoint_of_processes_is_restored_on_threads_with_another_parallelism(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sage.core.runtime import session

    def build(runtime: str, parallelism: int, rate: float | None) -> LocalEnvironment:
        env = LocalEnvironment(
            "savepoint",
            TWO | {"execution.runtime": runtime, "parallelism": parallelism, "checkpoint.dir": str(tmp_path / "c")},
        )
        numbers: Any = env.from_generator(lambda number: number, 4000, rate=rate)
        numbers.key_by(lambda value: value % 7).reduce(max, name="most").write_text(tmp_path / "out", exactly_once=True)
        return env

    handle = build("processes", 2, 2000).submit(block=False)
    time.sleep(1.0)
    made = handle.stop_with_savepoint(tmp_path / "s", timeout=60)
    with session.use(session.Session(restore=made)):
        build("threads", 3, None).submit()
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file() and not file.name.startswith((".", "_"))]
    written = [int(line) for file in files for line in file.read_text().splitlines()]
    assert sorted(written) == list(range(4000))


def endless() -> Iterator[int]:
    value = 0
    while True:
        yield value
        value += 1
        time.sleep(0.001)


def test_cancel_lets_what_was_read_run_out(capsys: pytest.CaptureFixture[str]) -> None:
    env = environment()
    env.from_source(endless).rebalance().map(lambda value: value).print()
    handle = env.submit(block=False)
    deadline = time.monotonic() + 60
    while handle.metrics().records_out < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    handle.cancel()
    assert handle.wait(60) == "cancelled"
    values = sorted(int(line) for line in capsys.readouterr().out.splitlines())
    assert values == list(range(len(values)))
    assert len(values) == handle.metrics().records_in
    assert not workers()


def test_abort_ends_workers_whose_functions_hang() -> None:
    env = environment()
    env.from_collection(range(10)).map(lambda value: time.sleep(3600)).print()
    handle = env.submit(block=False)
    deadline = time.monotonic() + 60
    while len(workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    handle.abort()
    assert handle.wait(60) == "cancelled"
    assert not workers()


def test_a_hanging_function_is_told_with_its_line() -> None:
    env = environment(hang_timeout="1s")
    env.from_collection(range(2)).map(lambda value: time.sleep(3600), name="sleeps").print()
    with pytest.raises(PipelineError, match=r"hangs.*test_processes\.py:\d+"):
        env.submit()
    assert not workers()


def test_a_slow_receiver_in_another_process_holds_the_source_back() -> None:
    env = environment(parallelism=1, buffer_size=16, channel_capacity=2)

    def slow(value: int) -> None:
        time.sleep(0.05)

    env.from_source(lambda: iter(range(10**9))).rebalance().sink(slow)
    handle = env.submit(block=False)
    deadline = time.monotonic() + 60
    while handle.metrics().records_out < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    metrics = handle.metrics()
    handle.abort()
    handle.wait(60)
    assert metrics.records_in - metrics.records_out < 400
