"""The report as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.environments import FLOW_PEERS
from benchmarks.findings import Finding
from benchmarks.flow.measure import Cell
from benchmarks.flow.sides import TITLES

_HEAD = """# Benchmarks of the dataflow engine

Written by `make bench-flow`; do not edit. {machine}.

Every side of a table is a process of its own in an environment of its own, with the same input made from a seed before
the clock starts; they take turns, round after round, and are frozen while another runs. Every run's output is checked.
Rates are those of the best run, with the median beside them: records over the time from submitting a job until its
last record is out. CPU is processor time a record, of all threads. PyFlink's start of a job is taken off its times.
Batches have 1,024 records with us and with bytewax where nothing else is said. bytewax is quicker with larger ones, at
the price of latency, and has rows and targets of its own for them; ours is not.
"""


def render(
    cells: list[Cell], targets: list[Finding], others: list[Finding], tables: list[str], failures: list[str]
) -> str:
    """The whole report. `tables`: Markdown of other parts; `failures`: what could not be measured at all."""
    parts = [_HEAD.format(machine=_machine()), "## What has to be reached", ""]
    parts += _findings([*targets, *others])
    if failures:
        parts += ["", "## Not measured", "", *(f"- {each}" for each in failures)]
    for row in dict.fromkeys(cell.side.row for cell in cells):
        parts += ["", *_table(row, [cell for cell in cells if cell.side.row == row])]
    for table in tables:
        parts += ["", table]
    parts += ["", "## Peers", "", *(f"- {name}: {', '.join(wanted)}" for name, wanted in FLOW_PEERS.items())]
    return "\n".join(parts) + "\n"


def _findings(findings: Iterable[Finding]) -> list[str]:
    head = ["| what | measured | ratio | has to be | reached |", "| --- | --- | --- | --- | --- |"]
    return [*head, *(finding.row() for finding in findings)]


def _table(row: str, cells: list[Cell]) -> list[str]:
    ours = next((cell.rate for cell in cells if cell.side.ours), 0.0)
    lines = [
        f"## {TITLES[row]}",
        "",
        "| | records | records/s, best (median) | first row over it | CPU a record | resident after | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [_cell(cell, ours) for cell in cells]


def _cell(cell: Cell, ours: float) -> str:
    side = cell.side
    if not cell.runs:
        return f"| {side.name} | {side.records:,} | – | – | – | – | {cell.failure} |"
    notes = [side.note] if side.note else []
    if cell.lost:
        notes.append(f"{cell.lost:,} events in no window")
    if cell.runs[0].get("checkpoints"):
        notes.append(f"{cell.runs[-1]['checkpoints']} checkpoints a run")
    return (
        f"| {side.name} | {side.records:,} | {cell.rate:,.0f} ({cell.median:,.0f}) | {ours / cell.rate:.2f}x "
        f"| {1e6 * cell.cpu:.2f} us | {cell.rss / 2**20:,.0f} MiB | {'; '.join(notes)} |"
    )


def _machine() -> str:
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"Python {platform.python_version()}, {model}, {len(os.sched_getaffinity(0))} cores"
