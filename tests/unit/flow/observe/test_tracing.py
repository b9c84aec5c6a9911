"""Single records followed through operators, tasks and the ends that they come to."""

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.spans import by_name, read_spans, trace_of

from sage.common.errors import PipelineError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.runtime import tracing
from sage.core.runtime.events import Batch, TraceContext
from sage.core.runtime.tracing import JsonSpans, TokenBucket

pytestmark = pytest.mark.spec("K11")


def traced(name: str = "job", **config: Any) -> LocalEnvironment:
    return LocalEnvironment(name, {"tracing": {"enabled": True}, **config})


def test_every_operator_that_a_record_passes_makes_a_span(home: SageHome) -> None:
    out: list[str] = []
    env = traced()
    words = env.from_collection(["a b", "c"]).flat_map(str.split, name="split")
    words.key_by(lambda word: word).map(str.upper, name="upper").sink(out.append, name="out")
    handle = env.submit()
    assert sorted(out) == ["A", "B", "C"]
    spans = read_spans(home, handle.job_id)
    roots = [span for span in spans if span["parent_id"] is None]
    assert [root["record"] for root in roots] == ["'a b'", "'c'"]
    first = trace_of(spans, roots[0])
    assert [span["name"] for span in first] == ["from_collection", "split", "upper", "out"]
    assert by_name(first)["split"]["records_out"] == 2
    assert by_name(first)["out"]["records_in"] == 2
    for above, below in itertools.pairwise(first):
        assert below["parent_id"] == above["span_id"]
        assert below["start_ns"] >= above["start_ns"]
    assert {span["job"] for span in spans} == {"job"}
    assert len({span["span_id"] for span in spans}) == len(spans)


def test_the_parts_of_a_record_are_followed_to_all_subtasks(home: SageHome) -> None:
    env = traced(parallelism=3)
    numbers = env.from_collection([range(30)]).flat_map(list, name="each")
    numbers.key_by(lambda n: n).map(lambda n: n, name="worker").sink(lambda n: None)
    spans = read_spans(home, env.submit().job_id)
    workers = [span for span in spans if span["name"] == "worker"]
    assert {span["subtask"] for span in workers} == {0, 1, 2}
    assert sum(span["records_in"] for span in workers) == 30
    assert len({span["trace_id"] for span in spans}) == 1


def test_a_trace_ends_where_the_record_does(home: SageHome) -> None:
    env = traced()
    kept = env.from_collection([1, 2, 3]).filter(lambda n: n != 2, name="odd").key_by(lambda n: n)
    kept.reduce(lambda a, b: a + b, name="sum").sink(lambda n: None, name="out")
    spans = read_spans(home, env.submit().job_id)
    names = [[span["name"] for span in trace_of(spans, root)] for root in spans if root["parent_id"] is None]
    assert names == [
        ["from_collection", "odd", "sum", "out"],
        ["from_collection", "odd"],
        ["from_collection", "odd", "sum", "out"],
    ]


def test_the_span_at_which_a_function_raised_says_so(home: SageHome) -> None:
    env = traced(on_error="skip")
    env.from_collection([1, 0]).map(lambda n: 1 // n, name="divide").sink(lambda n: None, name="out")
    spans = read_spans(home, env.submit().job_id)
    assert ["error" in span for span in spans if span["name"] == "divide"] == [False, True]
    assert [span["name"] for span in spans if "error" in span] == ["divide"]
    env = traced("fails")
    env.from_collection([0]).map(lambda n: 1 // n, name="divide").sink(lambda n: None)
    with pytest.raises(PipelineError):
        env.submit()
    (file,) = [path for path in (home.root / "traces").iterdir() if "fails" in path.read_text()]
    divide = by_name([json.loads(line) for line in file.read_text().splitlines()])["divide"]
    assert "ZeroDivisionError" in divide["error"]


def test_results_and_counts_are_those_of_a_job_without_tracing(home: SageHome) -> None:
    def run(**config: Any) -> tuple[list[Any], list[tuple[str, int, int]]]:
        out: list[Any] = []
        env = LocalEnvironment("same", config)
        stream = env.from_collection(range(3000)).map(lambda n: n * 2).filter(lambda n: n % 3 != 0)
        stream.key_by(lambda n: n % 7).reduce(lambda a, b: a + b).rebalance().sink(out.append, parallelism=1)
        metrics = env.submit().metrics()
        return out, [(row.operator, row.records_in, row.records_out) for row in metrics.operators]

    assert run(tracing={"enabled": True, "records_per_second": 500}) == run()


def test_only_some_records_a_second_are_traced() -> None:
    now = [0.0]
    bucket = TokenBucket(10, lambda: now[0])
    assert [bucket.take(8), bucket.take(8), bucket.take(8)] == [8, 2, 0]
    now[0] = 0.55
    assert [bucket.take(8), bucket.take(1)] == [5, 0]
    now[0] = 100.0
    assert bucket.take(1000) == 10


def test_a_file_that_cannot_be_written_is_told_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    spans = JsonSpans(tmp_path / "file" / "t.jsonl")
    for _ in range(3):
        spans.span("a", None, 0, 1, {})
        spans.flush()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_file_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_BYTES", 1000)
    spans = JsonSpans(tmp_path / "t.jsonl")
    for _ in range(50):
        spans.span("a", None, 0, 1, {})
        spans.flush()
    assert 1000 < (tmp_path / "t.jsonl").stat().st_size < 1300


def test_secrets_in_records_are_masked(home: SageHome) -> None:
    env = traced()
    env.from_collection(["sk-abcdefgh12345"]).sink(lambda record: None)
    text = (home.root / "traces" / f"{env.submit().job_id}.jsonl").read_text()
    assert "abcdefgh" not in text
    assert "***" in text


def test_without_tracing_nothing_is_written(home: SageHome) -> None:
    env = LocalEnvironment("plain")
    env.from_collection([1]).sink(lambda record: None)
    env.submit()
    assert not (home.root / "traces").exists()


def test_spans_go_to_opentelemetry_where_a_provider_is_set_up(home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the OpenTelemetry SDK is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    seen = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    env = traced(on_error="skip")
    env.from_collection([1, 0]).rebalance().map(lambda n: 1 // n, name="divide").sink(lambda n: None, name="out")
    env.submit()
    spans = seen.get_finished_spans()
    assert [span.name for span in spans].count("from_collection") == 2
    first = [span for span in spans if span.context.trace_id == spans[0].context.trace_id]
    by: dict[str, Any] = {span.name: span for span in first}
    assert by["divide"].parent.span_id == by["from_collection"].context.span_id
    assert by["divide"].attributes["sage.records_in"] == 1
    assert [span.name for span in spans if not span.status.is_ok and span.status.description] == ["divide"]
    assert not (home.root / "traces").exists()


def test_a_trace_is_plain_data() -> None:
    batch = Batch([1], None, TraceContext("ab", "cd"))
    assert batch.cut(0, 1).trace is None
    assert batch.split(10) == [batch]
