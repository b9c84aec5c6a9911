"""What has to be reached in rows a, b and c, as ratios of the best runs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.findings import Finding
from benchmarks.flow.measure import Cell
from benchmarks.flow.sides import TITLES

_BYTEWAX = ("bytewax", "bytewax, recovery")
_LARGE = ("bytewax, large batches",)
_ALL_OF_C = (*_BYTEWAX, "pathway", "quixstreams", "PyFlink")


@dataclass(frozen=True, slots=True)
class Target:
    """Ours has to reach `factor` times the best of `peers` in a row."""

    row: str
    ours: str
    peers: tuple[str, ...]
    factor: float


TARGETS = (
    Target("a", "ours", _BYTEWAX, 1.0),
    Target("a", "ours", ("plain loop",), 0.7),
    Target("b", "ours, ValueState", ("bytewax",), 3.0),
    Target("b", "ours, ValueState", _LARGE, 3.0),
    Target("b", "ours, reduce", ("bytewax",), 3.0),
    Target("b", "ours, count()", ("bytewax",), 3.0),
    Target("b", "ours, RocksDB, checkpoints", ("bytewax, recovery",), 2.5),
    Target("b", "ours, RocksDB, checkpoints", ("bytewax",), 2.5),
    Target("b", "ours, ValueState", ("PyFlink", "PyFlink, reduce"), 15.0),
    Target("c", "ours, aggregate", _ALL_OF_C, 10.0),
    Target("c", "ours, count()", _ALL_OF_C, 20.0),
    Target("c", "ours, aggregate", _LARGE, 10.0),
    Target("c", "ours, count()", _LARGE, 20.0),
)


def judge(cells: list[Cell]) -> list[Finding]:
    """The targets beside what came out; a side that gave nothing is at 0."""
    found = {(cell.side.row, cell.side.name): cell for cell in cells}
    rows = {cell.side.row for cell in cells}
    findings = [_judge(target, found) for target in TARGETS if target.row in rows]
    return findings + [each for cell in cells if cell.side.ours and cell.side.row == "c" for each in _sound(cell)]


def _judge(target: Target, found: dict[tuple[str, str], Cell]) -> Finding:
    def rate(name: str) -> float:
        cell = found.get((target.row, name))
        return cell.rate if cell else 0.0

    best = max(target.peers, key=rate)
    ours, theirs = rate(target.ours), rate(best)
    what = f"{TITLES[target.row].split(',')[0]}: {target.ours} / {best}"
    return Finding(
        what, f"{ours:,.0f} / {theirs:,.0f} records/s", ours / theirs if theirs else 0.0, target.factor, at_least=True
    )


def _sound(cell: Cell) -> list[Finding]:
    different = sum(not run.get("identical", False) for run in cell.runs)
    return [
        Finding(f"c: {cell.side.name}, events lost", f"{cell.lost} of {cell.side.records:,}", cell.lost, 0),
        Finding(f"c: {cell.side.name}, runs that differ", f"{different} of {len(cell.runs)}", different, 0),
    ]
