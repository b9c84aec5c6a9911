"""Reads the spans that a job with tracing has left."""

import json
from typing import Any

from sage.common.home import SageHome

Span = dict[str, Any]


def read_spans(home: SageHome, job_id: str) -> list[Span]:
    """All of them, in the order of their writing."""
    file = home.root / "traces" / f"{job_id}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def trace_of(spans: list[Span], root: Span) -> list[Span]:
    """The spans of a trace, each behind the one that it came out of."""
    return [span for span in spans if span["trace_id"] == root["trace_id"]]


def by_name(spans: list[Span]) -> dict[str, Span]:
    """One of each name."""
    return {span["name"]: span for span in spans}
