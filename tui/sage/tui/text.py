"""The headless twin: what the dashboard shows, as plain text for pipes and as JSON for scripts.

Two looks a moment apart, so that rates and CPU are of now and not of ever. Loads neither Textual nor Rich.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sage.common.home import SageHome
from sage.tui.data import Collector, DaemonView, EngineView, GatewayView, JobView, Quantiles, Snapshot
from sage.tui.format import age, clip, count, duration, latency, percent, rate, size

__all__ = ["collect", "lines", "snapshot", "snapshot_json"]

WIDTH = 80
SETTLE_S = 0.4


def collect(home: SageHome | None = None, *, settle_s: float = SETTLE_S) -> Snapshot:
    """One snapshot whose rates cover the last ``settle_s`` seconds."""
    collector = Collector(home or SageHome.find())
    try:
        collector.collect()
        time.sleep(settle_s)
        return collector.collect()
    finally:
        collector.close()


def snapshot(home: SageHome | None = None, *, settle_s: float = SETTLE_S) -> str:
    """The state of ``home`` (default: the nearest ``.sage``) as text of at most 80 columns, ending with a newline."""
    return "\n".join(lines(collect(home, settle_s=settle_s))) + "\n"


def snapshot_json(home: SageHome | None = None, *, settle_s: float = SETTLE_S) -> dict[str, Any]:
    """The same as plain JSON values; keys are the fields of :class:`sage.tui.data.Snapshot`."""
    return plain(collect(home, settle_s=settle_s))


def plain(taken: Snapshot) -> dict[str, Any]:
    """A snapshot as plain JSON values, without the recent past that only a screen draws."""
    values: dict[str, Any] = _without_history(asdict(taken))
    return values


def _without_history(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_history(item) for key, item in value.items() if not key.endswith("_history")}
    if isinstance(value, (list, tuple)):
        return [_without_history(item) for item in value]
    return value


def lines(taken: Snapshot) -> Iterator[str]:
    """The text, line by line; no line is wider than 80 columns and none ends with a space."""
    for line in _all(taken):
        yield clip(line.rstrip(), WIDTH)


def _all(taken: Snapshot) -> Iterator[str]:
    yield f"SAGE  {taken.home}"
    yield from (f"note  {note}" for note in taken.notes)
    yield ""
    yield from _system(taken)
    yield ""
    if taken.empty:
        yield "Nothing runs here yet. Start the stack:  sage llm serve"
        return
    yield from _daemons(taken.stack.daemons)
    for engine in taken.engines:
        yield from _engine(engine)
    if taken.gateway is not None:
        yield from _gateway(taken.gateway)
    for view in taken.embeddings:
        yield ""
        yield f"embedding  {view.model or view.name}{_stale(view.fresh.stale, view.fresh.age_s)}"
        batch = f"a batch {rate(view.batch_size)}"
        p95 = latency(view.latency.p95)
        yield f"  texts/s {rate(view.text_rate)}   {batch}   total {count(view.texts)}   p95 {p95}"
    yield from _jobs(taken.jobs)


def _system(taken: Snapshot) -> Iterator[str]:
    system = taken.system
    memory = f"{size(system.memory_used)} of {size(system.memory_total)}"
    yield f"cpu {percent(system.cpu)} of {system.cores} cores   memory {memory}   disk {size(system.disk_free)} free"
    for gpu in system.accelerators:
        memory = f"{size(gpu.memory_used)} of {size(gpu.memory_total)}"
        yield f"gpu{gpu.index} {gpu.name}   {percent(gpu.utilisation)}   memory {memory}"


def _table(head: str, rows: Iterable[tuple[str, ...]], widths: tuple[int, ...]) -> Iterator[str]:
    """Columns of the given widths; a negative width aligns to the right."""
    for cells in (tuple(head.split("|")), *rows):
        yield "  ".join(
            clip(cell, abs(width)).rjust(-width) if width < 0 else clip(cell, width).ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        )


def _daemons(daemons: tuple[DaemonView, ...]) -> Iterator[str]:
    if not daemons:
        yield "No daemons. Start the stack:  sage llm serve"
        return
    rows = (
        (
            daemon.name,
            daemon.state,
            str(daemon.pid or "–"),
            str(daemon.port or "–"),
            str(daemon.restarts),
            duration(daemon.uptime_s),
            percent(daemon.cpu),
            size(daemon.rss),
        )
        for daemon in daemons
    )
    yield from _table("DAEMON|STATE|PID|PORT|RESTARTS|UP|CPU|MEMORY", rows, (14, 11, -7, -5, -8, -8, -5, -8))
    yield from (f"  {daemon.name}: {daemon.last_error}" for daemon in daemons if daemon.last_error)


def _stale(stale: bool, age_s: float | None) -> str:
    return "" if not stale else "   STALE: no data" if age_s is None else f"   STALE: {age(age_s)} old"


def _quantiles(label: str, values: Quantiles) -> str:
    span = "last minute" if values.window_s else "since start"
    numbers = "   ".join(
        f"{q} {latency(v)}" for q, v in (("p50", values.p50), ("p95", values.p95), ("p99", values.p99))
    )
    return f"  {label:<11} {numbers}   ({span}, {values.count})"


def _engine(engine: EngineView) -> Iterator[str]:
    yield ""
    yield f"engine  {engine.model or engine.name}{_stale(engine.fresh.stale, engine.fresh.age_s)}"
    yield (
        f"  running {count(engine.running)}   waiting {count(engine.waiting)}   kv {percent(engine.kv_usage)}   "
        f"tokens/s {rate(engine.token_rate)}   prompt tokens/s {rate(engine.prompt_rate)}"
    )
    yield _quantiles("first token", engine.ttft)
    yield _quantiles("each token", engine.tpot)


def _gateway(gateway: GatewayView) -> Iterator[str]:
    yield ""
    yield f"gateway  {gateway.state}{_stale(gateway.fresh.stale, gateway.fresh.age_s)}"
    yield (
        f"  requests/s {rate(gateway.rate)}   in flight {count(gateway.inflight)}   queue {count(gateway.queue)}   "
        f"errors {percent(gateway.error_ratio)}   refused {count(gateway.rejected)}"
    )
    yield _quantiles("answer", gateway.latency)


def _jobs(jobs: tuple[JobView, ...]) -> Iterator[str]:
    if not jobs:
        return
    yield ""
    rows = [
        (
            job.name or job.id,
            job.state,
            count(job.records_in),
            count(job.records_out),
            rate(job.rate),
            duration(job.seconds),
        )
        for job in jobs[:10]
    ]
    yield from _table("PIPELINE|STATE|IN|OUT|OUT/S|TIME", rows, (31, 9, -7, -7, -7, -8))
    yield from (f"  {job.name}: {job.error.splitlines()[0]}" for job in jobs[:10] if job.error)
