"""A snapshot of the dashboard's numbers as lines of text, one a service: for a shell to pick apart and to watch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage.tui.format import count, latency, percent, rate

if TYPE_CHECKING:
    from sage.tui.data import Quantiles, Snapshot


def lines(snapshot: Snapshot) -> list[str]:
    """One line a service and job, its time first: names and values that a shell can pick apart."""
    moment = time.strftime("%H:%M:%S", time.localtime(snapshot.taken_at))
    return [f"{moment}  {line}" for line in _lines(snapshot)] or [f"{moment}  nothing runs"]


def _lines(snapshot: Snapshot) -> Iterator[str]:
    gateway = snapshot.gateway
    if gateway is not None:
        yield (
            f"gateway    requests/s={rate(gateway.rate)} total={count(gateway.total)} "
            f"inflight={count(gateway.inflight)} queue={count(gateway.queue)} rejected={count(gateway.rejected)} "
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
