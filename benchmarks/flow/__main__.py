"""`python -m benchmarks.flow [--rows a,b,c] [--long] [--scale 0.1] [--no-write]`: measure everything, write REPORT.md.

About seven minutes on two cores; the first run also installs the peers. PyFlink needs Java.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path

from benchmarks.findings import Finding
from benchmarks.flow.measure import measure
from benchmarks.flow.report import render
from benchmarks.flow.sides import SIDES
from benchmarks.flow.targets import judge

_OTHERS = ("latency", "footprint", "calls", "parallel", "state", "nexmark_speed")


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow", description=__doc__)
    parser.add_argument("--rows", default="a,b,c", help="which rows of the tables")
    parser.add_argument("--others", default=",".join(_OTHERS), help="which of the other parts")
    parser.add_argument("--long", action="store_true", help="state of 10 M keys too, which takes a minute or two")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the records, for a quick look")
    parser.add_argument("--no-write", action="store_true", help="print the report alone")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # peers are ended on the way out
    begun = time.monotonic()
    cells = measure([side for side in SIDES if side.row in arguments.rows.split(",")], scale=arguments.scale)
    names = [name for name in arguments.others.split(",") if name]
    others, tables, failures = _others([*names, "big_state"] if arguments.long else names)
    text = render(cells, judge(cells), others, tables, failures)
    print(text, end="")
    print(f"{time.monotonic() - begun:.0f} s in all", file=sys.stderr)
    if not arguments.no_write:
        (Path(__file__).parent / "REPORT.md").write_text(text, encoding="utf-8")


def _others(names: list[str]) -> tuple[list[Finding], list[str], list[str]]:
    """Findings and tables of the modules beside this one, and why some could not be measured."""
    findings: list[Finding] = []
    tables: list[str] = []
    failures: list[str] = []
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            found = importlib.import_module(f"benchmarks.flow.{name}").measure()
        except Exception as error:  # one that fails must not cost the report of the others
            failures.append(f"{name}: {type(error).__name__}: {error}")
        else:
            findings += found[0]
            tables += found[1]
    return findings, tables, failures


if __name__ == "__main__":
    main()
