"""`python -m benchmarks.engine [--models …] [--no-write]`: measure everything and write REPORT.md beside this file.

About ten minutes on two quiet cores; the first run also installs the peers and converts the models.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.engine import measure as measuring
from benchmarks.engine.limits import ReadBandwidth, packs_weights
from benchmarks.engine.measure import Plan, Table
from benchmarks.engine.models import MEDIUM, SMALL
from benchmarks.engine.report import render
from benchmarks.engine.scenarios import PREFILL, SIXTEEN, one_stream
from benchmarks.engine.sides import SIDES
from benchmarks.engine.targets import judge
from benchmarks.findings import Finding

_SHAPES = {shape.title: shape for shape in (SMALL, MEDIUM)}
_PLANS = {
    SMALL.title: [Plan(one_stream(128), 5, 25), Plan(PREFILL, 7, 12), Plan(SIXTEEN, 3, 35)],
    MEDIUM.title: [Plan(one_stream(64), 4, 60), Plan(PREFILL, 5, 25), Plan(SIXTEEN, 3, 100)],
}
_OTHERS = ("lifecycle", "scheduler", "decoding", "http")


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--models", default=",".join(_SHAPES), help="which models, by title (all)")
    parser.add_argument("--sides", default="", help="only sides whose names begin with this")
    parser.add_argument("--only-tables", action="store_true", help="leave out everything but tokens a second")
    parser.add_argument("--no-write", action="store_true", help="print the report alone")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # peers are ended on the way out
    begun = time.monotonic()
    bandwidth = ReadBandwidth()
    sides = [side for side in SIDES if side.name.startswith(arguments.sides)]
    tables = [
        measuring.measure(_SHAPES[name], _PLANS[name], _threads(), between=bandwidth.measure, sides=sides)
        for name in arguments.models.split(",")
    ]
    others, failures = ([], []) if arguments.only_tables else _others()
    packed = packs_weights()
    targets = [finding for table in _in_order(tables) for finding in judge(table, bandwidth.best, packed=packed)]
    text = render(_in_order(tables), targets, others, failures, bandwidth.best, packed=packed)
    print(text, end="")
    print(f"{time.monotonic() - begun:.0f} s in all", file=sys.stderr)
    if not arguments.no_write:
        (Path(__file__).parent / "REPORT.md").write_text(text, encoding="utf-8")


def _others() -> tuple[list[Finding], list[str]]:
    """Findings of the modules beside this one, and why some could not be measured."""
    findings: list[Finding] = []
    failures: list[str] = []
    for name in _OTHERS:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            findings += importlib.import_module(f"benchmarks.engine.{name}").measure()
        except Exception as error:  # one that fails must not cost the report of the others
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return findings, failures


def _in_order(tables: list[Table]) -> list[Table]:
    """The big model first."""
    return sorted(tables, key=lambda table: -table.shape.parameters)


def _threads() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
