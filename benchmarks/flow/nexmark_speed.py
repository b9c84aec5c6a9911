"""Nexmark's q0–q5, q7 and q8 beside bytewax and PyFlink, where these can say the query."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environments import OURS, EnvironmentUnavailableError
from benchmarks.findings import Finding
from benchmarks.flow.nexmark.digest import digest
from benchmarks.flow.nexmark.events import generate
from benchmarks.flow.nexmark.reference import Database
from benchmarks.peer import PeerFailedError, PeerProcess

_SCRIPTS = Path(__file__).parent / "peers"
_QUERIES = ("q0", "q1", "q2", "q3", "q4", "q5", "q7", "q8")
_CHECKED = 4_000  # events over which results are compared with SQL
_FACTOR = 1.0


@dataclass(slots=True)
class _Side:
    """A competitor: events of a run, rounds, queries that it cannot say."""

    name: str
    environment: str
    script: str
    records: int
    rounds: int
    without: tuple[str, ...] = ()
    process: PeerProcess | None = None
    rates: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure() -> tuple[list[Finding], list[str]]:
    """A finding for each query and peer, and the table."""
    sides = [
        _Side("ours", OURS, "nexmark_ours", 200_000, 3),
        _Side("bytewax", "flow-bytewax", "nexmark_bytewax", 50_000, 3, ("q4",)),
        _Side("PyFlink", "flow-pyflink", "nexmark_pyflink", 40_000, 1, ("q8",)),
    ]
    with Database(generate(_CHECKED)) as database:
        wanted = {query: digest(database.rows(query)) for query in _QUERIES}
    with ExitStack() as ending:
        for side in sides:
            _start(side, ending)
        for query in _QUERIES:
            print(f"nexmark {query}", file=sys.stderr, flush=True)
            for number in range(max(side.rounds for side in sides)):
                for side in sides:
                    if number < side.rounds and query not in side.without and query not in side.failures:
                        _turn(side, query, wanted[query] if number == 0 else "")
    ours, *peers = sides
    findings = [_finding(query, ours, peer) for query in _QUERIES for peer in peers if query in peer.rates]
    return findings, [_table(sides)]


def _start(side: _Side, ending: ExitStack) -> None:
    try:
        side.process = PeerProcess(f"flow-{side.script}", side.environment, _SCRIPTS / f"{side.script}.py")
        ending.callback(side.process.close)
        side.process.ask("prepare", records=side.records)
    except (EnvironmentUnavailableError, PeerFailedError) as error:
        side.failures.update(dict.fromkeys(_QUERIES, str(error)))


def _turn(side: _Side, query: str, wanted: str) -> None:
    """One run; before the first, whether the results are right (`wanted`: their digest)."""
    assert side.process is not None
    try:
        if wanted and side.process.ask("check", query=query, records=_CHECKED)["result"] != wanted:
            side.failures[query] = "its results differ from SQL's"
            return
        rate = side.records / side.process.ask("time", query=query)["result"]["wall"]
        side.rates[query] = max(rate, side.rates.get(query, 0.0))
    except PeerFailedError as error:
        side.failures[query] = str(error)


def _finding(query: str, ours: _Side, peer: _Side) -> Finding:
    mine, theirs = ours.rates.get(query, 0.0), peer.rates[query]
    measured = f"{mine:,.0f} / {theirs:,.0f} events/s"
    return Finding(f"Nexmark {query}: ours / {peer.name}", measured, mine / theirs, _FACTOR, at_least=True)


def _table(sides: list[_Side]) -> str:
    lines = [
        "## Nexmark, events a second",
        "",
        "Events of all kinds, the best run; results over the first events equal SQL's.",
        "",
        "| | events | " + " | ".join(_QUERIES) + " |",
        "| --- | --- |" + " --- |" * len(_QUERIES),
    ]
    for side in sides:
        cells = (f"{side.rates[query]:,.0f}" if query in side.rates else "–" for query in _QUERIES)
        lines.append(f"| {side.name} | {side.records:,} | " + " | ".join(cells) + " |")
    failed = [f"- {side.name}, {query}: {reason}" for side in sides for query, reason in side.failures.items()]
    return "\n".join([*lines, *([""] if failed else []), *failed])
