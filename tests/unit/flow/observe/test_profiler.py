"""Where time and memory go: the profiler against pipelines whose answer is known."""

import doctest
import hashlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import sage.utils.profiler
from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment
from sage.core.api.function import KeyedProcessFunction
from sage.core.api.state import ValueStateDescriptor
from sage.core.runtime import session
from sage.core.testing import PAUSE, MarkedSource
from sage.utils.profiler import Flame, PipelineProfiler, StackFrame

pytestmark = pytest.mark.spec("K11")


def burn(record: Any) -> Any:
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1500)
    return record


def rest(record: Any) -> Any:
    time.sleep(0.002)
    return record


@pytest.mark.parametrize("module", ["flame", "pipeline"])
def test_the_examples_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"sage.utils.profiler.{module}"))
    assert (failed, tried > 0) == (0, True)


def test_the_bottleneck_is_what_limits_the_rate() -> None:
    env = LocalEnvironment("p")
    stream = env.from_collection(range(300)).map(burn, name="burn").rebalance().map(rest, name="rest", parallelism=2)
    stats = PipelineProfiler(env).analyze(stream.sink(lambda record: None, name="out"))
    by = {row.operator: row for row in stats.operators}
    assert stats.bottleneck == "rest"
    assert by["rest"].wall_s > by["burn"].wall_s > by["out"].wall_s
    assert (by["rest"].records_in, by["rest"].parallelism) == (300, 2)
    assert stats.samples > 10
    if sys.platform == "linux":
        assert by["burn"].cpu_s is not None
        assert by["rest"].cpu_s is not None
        assert by["burn"].cpu_s > 2 * by["rest"].cpu_s
        assert by["burn"].cpu_s <= by["burn"].wall_s * 1.5 + 0.1
    assert "rest" in str(stats)
    assert "← bottleneck" in str(stats)


def test_frames_stand_under_their_operator() -> None:
    env = LocalEnvironment("p")
    env.from_collection(range(400)).map(burn, name="burn").sink(lambda record: None)
    flame = PipelineProfiler(env, interval=0.001).analyze().flame
    inside = [stack for stack in flame.stacks if stack[0].name == "burn"]
    assert inside
    assert any(frame.name == "burn" and frame.file == __file__ for stack in inside for frame in stack[1:])
    assert not any("Bell.sleep" in frame.name for stack in flame.stacks for frame in stack)


def test_operators_with_state_are_told_by_name_and_size() -> None:
    class Keep(KeyedProcessFunction[Any, Any, Any]):
        def open(self, context: Any) -> None:
            self.kept = context.get_state(ValueStateDescriptor("kept"))

        def process_element(self, value: Any, context: Any, out: Any) -> None:
            self.kept.update("x" * 1000)
            burn(value)

    env = LocalEnvironment("p")
    env.from_collection(range(300)).key_by(lambda n: n).process(Keep(), name="keep").sink(lambda record: None)
    stats = PipelineProfiler(env, interval=0.001).analyze()
    assert stats.bottleneck == "keep"
    assert any(stack[0].name == "keep" for stack in stats.flame.stacks)
    assert 300_000 < stats.memory_usage.state < 600_000
    assert stats.memory_usage.peak >= stats.memory_usage.start > 0
    assert "state 0.3 MiB" in str(stats.memory_usage)


def test_a_pipeline_without_an_end_is_stopped() -> None:
    source = MarkedSource([1, 2, PAUSE])
    env = LocalEnvironment("p")
    env.from_source(source).sink(lambda record: None, name="out")
    stats = PipelineProfiler(env).analyze(duration=0.1)
    assert [row.records_in for row in stats.operators if row.operator == "out"] == [2]


def test_a_failure_is_the_pipelines_and_nothing_stays_behind() -> None:
    before = sys.getswitchinterval()
    env = LocalEnvironment("p")
    env.from_collection([0]).map(lambda n: 1 // n).sink(lambda record: None)
    with pytest.raises(PipelineError):
        PipelineProfiler(env).analyze()
    assert sys.getswitchinterval() == before


def test_sage_run_hears_of_the_job_too() -> None:
    running = session.Session(keeps=True)
    with session.use(running):
        env = LocalEnvironment("p")
        env.from_collection([1]).sink(lambda record: None)
        PipelineProfiler(env).analyze()
    assert [job.name for job in running.jobs] == ["p"]


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not above 0"):
        PipelineProfiler(LocalEnvironment("p"), interval=0)


SPEEDSCOPE = {  # what https://www.speedscope.app/file-format-schema.json asks of a sampled profile
    "type": "object",
    "required": ["$schema", "shared", "profiles"],
    "properties": {
        "shared": {
            "type": "object",
            "properties": {"frames": {"type": "array", "items": {"type": "object", "required": ["name"]}}},
        },
        "profiles": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "name", "unit", "startValue", "endValue", "samples", "weights"],
                "properties": {
                    "type": {"const": "sampled"},
                    "unit": {"enum": ["none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"]},
                },
            },
        },
    },
}


def test_the_files_are_what_flame_graph_tools_read(tmp_path: Path) -> None:
    flame = Flame(0.5)
    inner = StackFrame("clean;up", "/a/etl.py", 3)
    for _ in range(3):
        flame.add((StackFrame("map"), inner))
    flame.add((StackFrame("map"),))
    flame.write_collapsed(tmp_path / "f.txt")
    assert (tmp_path / "f.txt").read_text() == "map 1\nmap;clean,up (etl.py:3) 3\n"
    flame.write_speedscope(tmp_path / "f.json", "mine")
    document = json.loads((tmp_path / "f.json").read_text())
    jsonschema.validate(document, SPEEDSCOPE)
    (profile,) = document["profiles"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert [[names[number] for number in sample] for sample in profile["samples"]] == [["map"], ["map", "clean;up"]]
    assert (profile["weights"], profile["endValue"]) == ([0.5, 1.5], 2.0)
    assert len(flame) == 4


def test_the_surface() -> None:
    assert sage.utils.profiler.__all__ == sorted(sage.utils.profiler.__all__)
