"""The report as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.engine.measure import Cell, Entrant, Table
from benchmarks.engine.models import Shape
from benchmarks.engine.sides import SIDES
from benchmarks.engine.targets import PACKED_BITS, PLAIN_BITS, limit
from benchmarks.environments import ENGINE_PEERS, OURS
from benchmarks.findings import Finding

_HEAD = """# Benchmarks of the engine

Written by `make bench-engine`; do not edit. {machine}.

Random weights (speed does not depend on what they say), the same prompts and the same number of tokens for everybody,
greedy, prefix caching off. Every side is a process of its own with its model loaded; they take turns, round after
round, and are frozen while another runs. Figures are medians. CPU is processor time a token: two cores that compute all
the time need twice the wall time. Ours goes through `LLMEngine`, text of the tokens included; the peers give ids.
"""

_BEYOND_CACHES = 512 << 20  # weights of fewer bytes may stay in a processor's caches


def render(
    tables: list[Table],
    targets: list[Finding],
    others: list[Finding],
    failures: list[str],
    gbs: float,
    *,
    packed: bool,
) -> str:
    """The whole report.

    `failures`: what could not be measured at all. `gbs`: read bandwidth in bytes a second. `packed`: ours reads its
    bfloat16 weights in 12 bits.
    """
    parts = [_HEAD.format(machine=_machine()), "## What has to be reached", ""]
    parts += _findings("what", targets)
    if others:
        parts += ["", "## Everything else", "", *_findings("what", others)]
    if failures:
        parts += ["", "## Not measured", "", *(f"- {each}" for each in failures)]
    for table in tables:
        parts += ["", *_table(table, gbs, packed=packed)]
    parts += ["", "## Peers", "", *_peers()]
    return "\n".join(parts) + "\n"


def _findings(what: str, findings: Iterable[Finding]) -> list[str]:
    head = [f"| {what} | measured | ratio | has to be | reached |", "| --- | --- | --- | --- | --- |"]
    return [*head, *(finding.row() for finding in findings)]


def _table(table: Table, gbs: float, *, packed: bool) -> list[str]:
    shape = table.shape
    lines = [
        f"## {shape.title}: {shape.parameters / 1e6:,.0f} M weights",
        "",
        _dimensions(shape),
        "",
        "| | computes in | ready after | " + " | ".join(each.name for each in table.scenarios) + " |",
        "| --- | --- | --- |" + " --- |" * len(table.scenarios),
    ]
    lines += [_entrant(entrant, table) for entrant in table.entrants]
    if 2 * shape.parameters > _BEYOND_CACHES:
        lines += _limits(table, gbs, packed=packed)
    failed = [(each, _failures(each)) for each in table.entrants if _failures(each)]
    return lines + (["", *(f"- {each.side.name}: {reason}" for each, reason in failed)] if failed else [])


def _limits(table: Table, gbs: float, *, packed: bool) -> list[str]:
    """Rows of what reading memory allows one stream, and which of them counts for whom."""
    rest = " |" * (len(table.scenarios) - 1)
    rows = {"limit of memory, 16 bits": PLAIN_BITS}
    if packed:
        rows |= {"limit of memory, 12 bits: ours": PACKED_BITS}
    lines = [f"| *{name}* | | | *{limit(table, gbs, bits):,.1f}* |{rest}" for name, bits in rows.items()]
    text = f"Reading memory: {gbs / 1e9:.1f} GB/s, the best of the passes between the rounds."
    if packed:
        plain, less = (f"{table.shape.parameters * bits / 8e6:,.0f}" for bits in (PLAIN_BITS, PACKED_BITS))
        text += (
            f" A token reads all weights: {plain} MB in bfloat16. Ours packs them into 12 bits without loss and reads "
            f"{less} MB: the limit of these bytes is the one that counts for it, and what the target above means."
        )
    return [*lines, "", text]


def _dimensions(shape: Shape) -> str:
    return (
        f"{shape.layers} layers, {shape.hidden} wide, {shape.heads} heads ({shape.kv_heads} of keys and values), "
        f"{shape.inner} inner, {shape.vocabulary:,} words. Tokens a second; in brackets ours over it "
        "(our int8 over 8 bits), and CPU time a token."
    )


def _entrant(entrant: Entrant, table: Table) -> str:
    side = entrant.side
    rival = "" if side.ours else next(each.name for each in SIDES if each.ours and each.bits == side.bits)
    cells = [_cell(entrant.cells.get(scenario.name), table.rate(rival, scenario.name)) for scenario in table.scenarios]
    ready = f"{entrant.load_s:.1f} s" if entrant.load_s else ""
    return f"| {entrant.side.name} | {entrant.note} | {ready} | " + " | ".join(cells) + " |"


def _cell(cell: Cell | None, ours: float) -> str:
    if cell is None or not cell.runs:
        return "–"
    ratio = f"{ours / cell.rate:.2f}x, " if ours else ""
    return f"{cell.rate:,.1f} ({ratio}{1e3 * cell.cpu_per_token:.2f} ms)"


def _failures(entrant: Entrant) -> str:
    reasons = [entrant.failure, *(f"{name}: {cell.failure}" for name, cell in entrant.cells.items() if cell.failure)]
    return "; ".join(reason for reason in reasons if reason)


def _machine() -> str:
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"Python {platform.python_version()}, {model}, {len(os.sched_getaffinity(0))} cores"


def _peers() -> list[str]:
    from importlib.metadata import version

    lines = [f"- {name}: {', '.join(wanted)}" for name, wanted in ENGINE_PEERS.items()]
    return [f"- {OURS}: torch {version('torch')}, transformers {version('transformers')}", *lines]
