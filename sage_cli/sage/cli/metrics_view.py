"""A snapshot of the dashboard's numbers as lines of text and as plain JSON values."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sage.tui.format import count, latency, percent, rate

if TYPE_CHECKING:
    from sage.tui.data import Quantiles, Snapshot


def as_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Everything measured, without the histories that only curves need; None where a number is not known."""
    return {key: _without_histories(value) for key, value in asdict(snapshot).items()}


def as_line(snapshot: Snapshot) -> str:
    """The same in one line."""
    return json.dumps(as_dict(snapshot), ensure_ascii=False)


def lines(snapshot: Snapshot) -> list[str]:
    """One line a service and job, its time first: names and values that a shell can pick apart."""
    moment = time.strftime("%H:%M:%S", time.localtime(snapshot.taken_at))
    return [f"{moment}  {line}" for line in _lines(snapshot)] or [f"{moment}  nothing runs"]


def _lines(snapshot: Snapshot) -> Iterator[str]:
    gateway = snapshot.gateway
    if gateway is not None:
        yield (
            f"gateway    requests/s={rate(gateway.rate)} total={count(gateway.total)} "
            + f"inflight={count(gateway.inflight)} queue={count(gateway.queue)} rejected={count(gateway.rejected)} "
            + _latencies("latency", gateway.latency)
        )
    for engine in snapshot.engines:
        yield (
            f"{engine.name:<10} running={count(engine.running)} waiting={count(engine.waiting)} "
            f"kv={percent(engine.kv_usage)} tokens/s={rate(engine.token_rate)} tokens={count(engine.tokens)} "
            f"{_latencies('ttft', engine.ttft)} {_latencies('tpot', engine.tpot)}"
        )
    for server in snapshot.embeddings:
        yield (
            f"{server.name:<10} texts/s={rate(server.text_rate)} texts={count(server.texts)} "
            f"batch={rate(server.batch_size)} {_latencies('latency', server.latency)}"
        )
    for job in snapshot.jobs:
        if job.state == "running":
            yield (f"job {job.name} in={count(job.records_in)} out={count(job.records_out)} records/s={rate(job.rate)}")


def _latencies(name: str, values: Quantiles) -> str:
    return f"{name} p50={latency(values.p50)} p95={latency(values.p95)} p99={latency(values.p99)}"


def _without_histories(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_histories(v) for k, v in value.items() if not k.endswith("_history")}
    if isinstance(value, list | tuple):
        return [_without_histories(item) for item in value]
    return value
