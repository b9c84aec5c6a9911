"""How long a record takes through an idle pipeline at 10,000 records a second, beside bytewax and pathway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.environments import OURS, EnvironmentUnavailableError
from benchmarks.findings import Finding
from benchmarks.peer import PeerFailedError, PeerProcess

_SCRIPTS = Path(__file__).parent / "peers"
_RATE = 10_000
_RECORDS = 25_000
_ROUNDS = 3
_TIMEOUT = 10  # ms
_SIDES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ours, buffer.timeout 0": (OURS, "ours", {"buffer_timeout": "0ms"}),
    f"ours, buffer.timeout {_TIMEOUT} ms": (OURS, "ours", {"buffer_timeout": f"{_TIMEOUT}ms"}),
    "bytewax": ("flow-bytewax", "with_bytewax", {}),
    "pathway": ("flow-pathway", "with_pathway", {}),
}


def measure() -> tuple[list[Finding], list[str]]:
    """Findings, and the table of all sides; of several rounds the one with the least median, for everybody."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(_ROUNDS):
        for name, (environment, script, options) in _SIDES.items():
            found = _once(environment, script, options)
            if found and (name not in best or found["p50"] < best[name]["p50"]):
                best[name] = found
    at_once, waiting, *_ = (best[name] for name in _SIDES if name.startswith("ours"))
    findings = [
        Finding("latency p50, two hops, buffer.timeout 0", f"{at_once['p50']:.3f} ms", at_once["p50"], 0.2),
        Finding("latency p99, two hops, buffer.timeout 0", f"{at_once['p99']:.3f} ms", at_once["p99"], 1.0),
        Finding(
            f"latency p50, two hops, buffer.timeout {_TIMEOUT} ms: at most half of it + 1 ms",
            f"{waiting['p50']:.2f} ms",
            waiting["p50"],
            _TIMEOUT / 2 + 1,
        ),
    ]
    table = [f"## Latency at {_RATE:,} records a second", "", "| | p50 | p99 |", "| --- | --- | --- |"]
    table += [f"| {name} | {found['p50']:.3f} ms | {found['p99']:.3f} ms |" for name, found in best.items()]
    return findings, ["\n".join(table)]


def _once(environment: str, script: str, options: dict[str, Any]) -> dict[str, float] | None:
    """p50 and p99 of a run in a process of its own; None where a peer cannot."""
    try:
        process = PeerProcess(f"flow-latency-{script}", environment, _SCRIPTS / f"{script}.py")
    except EnvironmentUnavailableError:
        return None
    try:
        result: dict[str, float] = process.ask("latency", records=_RECORDS, rate=_RATE, **options)["result"]
    except PeerFailedError:
        if environment == OURS:
            raise
        return None
    finally:
        process.close()
    return result
