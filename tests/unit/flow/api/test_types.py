"""Wrong pipelines are found by mypy, and the same ones when the job is built, with operator and line (SPEC K2)."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from sage.common.errors import PipelineError

HEAD = """
from typing import Any
from collections.abc import Iterable
from sage.core.api import (
    AggregateFunction, BroadcastProcessFunction, CoMapFunction, CoProcessFunction, Collector, DataStream,
    KeyedBroadcastProcessFunction, KeyedCoProcessFunction, KeyedProcessContext, KeyedProcessFunction, KeyedStream,
    LocalEnvironment, MapFunction, MapStateDescriptor, OnTimerContext, OutputTag, ProcessContext, ProcessFunction,
    ReadOnlyContext, BroadcastContext, ValueStateDescriptor, WatermarkStrategy, col,
)
from sage.core.api.windows import TumblingEventTimeWindows

class Longer(KeyedProcessFunction[int, str, float]):
    def open(self, context: Any) -> None:
        self.seen = context.get_state(ValueStateDescriptor[int]("seen", 0))
    def process_element(self, value: str, context: KeyedProcessContext, out: Collector[float]) -> None:
        out.collect(len(value) / 2)
    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[float]) -> None:
        out.collect(0.5)

class Total(AggregateFunction[int, int, str]):
    def create_accumulator(self) -> int:
        return 0
    def add(self, value: int, accumulator: int) -> int:
        return accumulator + value
    def get_result(self, accumulator: int) -> str:
        return str(accumulator)

class Both(CoMapFunction[int, str, float]):
    def map1(self, value: int) -> float:
        return value / 2
    def map2(self, value: str) -> float:
        return float(value)

class Meets(KeyedCoProcessFunction[int, int, str, bytes]):
    def process_element1(self, value: int, context: KeyedProcessContext, out: Collector[bytes]) -> None:
        out.collect(b"")
    def process_element2(self, value: str, context: KeyedProcessContext, out: Collector[bytes]) -> None:
        out.collect(value.encode())

class Rules(BroadcastProcessFunction[int, str, float]):
    def process_element(self, value: int, context: ReadOnlyContext, out: Collector[float]) -> None:
        out.collect(1.0)
    def process_broadcast_element(self, value: str, context: BroadcastContext, out: Collector[float]) -> None:
        context.get_broadcast_state(STATE).put(value, 1)

STATE: MapStateDescriptor[str, int] = MapStateDescriptor("state")
LATE: OutputTag[bytes] = OutputTag("late")

def parted(value: int, context: ProcessContext, out: Collector[str]) -> None:
    context.output(LATE, b"")

async def fetch(value: int) -> str:
    return str(value)

env = LocalEnvironment("typed")
numbers: DataStream[int] = env.from_collection([1, 2])
words: DataStream[str] = env.from_collection(["a"])
"""
GOOD = """
keyed: KeyedStream[int, str] = words.key_by(len)
halves: DataStream[float] = keyed.process(Longer)
again: DataStream[float] = keyed.process(Longer())
texts: DataStream[str] = numbers.key_by(lambda n: n % 2).aggregate(Total)
counts: DataStream[tuple[int, int]] = keyed.count()
parts: DataStream[str] = numbers.process(parted, name="part", uid="part-1")
late: DataStream[bytes] = parts.get_side_output(LATE)
both: DataStream[float] = numbers.connect(words).map(Both)
lambdas: DataStream[str] = numbers.connect(words).map(lambda n: str(n), lambda w: w.upper())
met: DataStream[bytes] = numbers.key_by(lambda n: n).connect(words.key_by(lambda w: len(w))).process(Meets)
ruled: DataStream[float] = numbers.connect(words.broadcast(STATE)).process(Rules)
joined: DataStream[tuple[int, str]] = (
    numbers.connect(words).key_by(lambda n: n, lambda w: len(w)).join(lambda n, w: (n, w))
)
strategy: WatermarkStrategy[int] = WatermarkStrategy.for_bounded_out_of_orderness("5s")
timed: DataStream[int] = numbers.assign_timestamps_and_watermarks(strategy.with_timestamp_assigner(lambda n: n))
rows: DataStream[dict[str, Any]] = words.map(lambda w: {"x": 1}).where(col("x") > 3).select("x", y=col("x") * 3 + 1)
dealt: DataStream[int] = numbers.rebalance().map(abs).rescale().filter(bool).forward()
total: DataStream[int] = numbers.key_by(lambda n: n % 2).sum()
fetched: DataStream[str] = numbers.async_map(fetch, timeout="5s", capacity=10)
awaited: DataStream[str] = numbers.map(fetch)
windowed: DataStream[float] = (
    timed.key_by(lambda n: n % 2).window(TumblingEventTimeWindows.of("1s")).mean().map(lambda result: result.value)
)
"""
# Each line is wrong: what mypy calls it (nothing: types cannot tell), what building it says (None: running it may).
BAD = [
    ("words.key_by(len).process(lambda value: value)", "arg-type|call-overload|misc", "does not take 3 arguments"),
    ("numbers.key_by(lambda n: n).process(Longer)", "arg-type|call-overload|type-var", None),
    ("numbers.key_by(lambda n: n).aggregate(Longer)", "arg-type|type-var", "has no method create_accumulator"),
    ("words.key_by(len).aggregate(Total)", "arg-type|type-var", None),
    ("words.connect(numbers).map(Both)", "arg-type|call-overload", None),
    ("numbers.connect(words).map(abs, lambda a, b: a)", "arg-type|call-overload|misc", "does not take 1 argument"),
    ("numbers.connect(words).process(Meets)", "arg-type|call-overload|type-var", None),
    ("numbers.connect(words).process(Both)", "arg-type|type-var", "has no method process_element1"),
    ("words.connect(numbers.broadcast(STATE)).process(Rules)", "arg-type|call-overload|type-var", None),
    (
        "numbers.key_by(lambda n: n).connect(words.broadcast(STATE)).process(Both)",
        "arg-type|call-overload|type-var",
        "has no",
    ),
    ("numbers.process(parted).get_side_output('late')", "arg-type", "named by an OutputTag"),
    ("numbers.process(parted).map(lambda text: text + 1)", "operator", None),
    ("numbers.process(parted).get_side_output(LATE).map(lambda raw: raw.upper_case())", "attr-defined", None),
    ("numbers.map(abs, uid=3)", "arg-type|call-overload", "uid must be a text"),
    ("numbers.map(abs, parallelism='2')", "arg-type|call-overload", "parallelism must be a whole number"),
    ("numbers.map(abs, paralelism=2)", "call-overload|call-arg", "paralelism"),
    ("numbers.key_by(abs).sum(paralelism=2)", "call-overload|call-arg", "did you mean 'parallelism'"),
    ("numbers.key_by(abs).count_window(2).sum(nam='x')", "call-overload|call-arg", "no option 'nam'"),
    ("numbers.where(lambda n: n > 3)", "arg-type", "needs an expression"),
    ("numbers.union(words)", "arg-type", None),
    ("numbers.connect(7)", "arg-type|call-overload", "needs a stream"),
    ("numbers.assign_timestamps_and_watermarks(5)", "arg-type", "needs a WatermarkStrategy"),
    ("words.async_map(fetch)", "arg-type|call-overload|type-var", None),
    ("numbers.async_map(fetch, capacity=0)", "", "capacity must be a whole number"),
    ("numbers.filter(fetch, uid='a').filter(bool, uid='a')", "", "Two operators have the uid"),
    ("numbers.sink_to(print)", "arg-type", "sink_to needs a Sink"),
    ("numbers.key_by(lambda n: n).window(5)", "arg-type", "assigner"),
    ("from sage.core.api import NoSuchName", "attr-defined", None),
    ("from sage.core.api.columns import NoSuchName", "attr-defined", None),
]


@pytest.mark.slow
@pytest.mark.spec("K2")
def test_mypy_finds_wrong_pipelines(tmp_path: pathlib.Path) -> None:
    """The good file passes; in the bad one every line has its error."""
    (tmp_path / "good.py").write_text(HEAD + GOOD)
    (tmp_path / "bad.py").write_text(HEAD + "\n".join(line for line, _, _ in BAD) + "\n")
    cache = str(tmp_path / "cache")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "--follow-imports=silent"]
    done = subprocess.run([*command, "good.py", "bad.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    errors: dict[int, str] = {}
    for file, number, rest in re.findall(r"^(\S+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        assert file == "bad.py", done.stdout
        errors[int(number)] = errors.get(int(number), "") + rest
    first = HEAD.count("\n") + 1
    missed = [
        f"{code}: {errors.get(line, 'no error')}"
        for line, (code, wanted, _) in enumerate(BAD, first)
        if wanted and not any(f"[{name}]" in errors.get(line, "") for name in wanted.split("|"))
    ]
    assert missed == []
    assert set(errors) <= set(range(first, first + len(BAD))), done.stdout


@pytest.mark.spec("K2")
def test_the_good_ones_can_be_built() -> None:
    exec(compile(HEAD + GOOD, "good.py", "exec"), {"__name__": "good"})


@pytest.mark.spec("K2")
@pytest.mark.parametrize(("code", "found"), [(code, found) for code, _, found in BAD if found is not None])
def test_building_finds_them_at_their_line(code: str, found: str) -> None:
    line = HEAD.count("\n") + 1
    with pytest.raises((PipelineError, TypeError)) as caught:
        exec(compile(HEAD + code, "user_pipeline.py", "exec"), {"__name__": "user"})
    error = caught.value
    assert found in f"{error} {getattr(error, 'hint', '')}"
    if isinstance(error, PipelineError):
        shown = f"{error} {error.details}"
        assert f"user_pipeline.py:{line}" in shown or f"'line': {line}" in shown
