"""``python -m benchmarks [NAME…] [--write]``: run all benchmarks, or those named; print the report.

With ``--write`` the report also goes to ``benchmarks/REPORT.md``.
"""

import argparse
import importlib
import pathlib

from benchmarks.measure import Comparison, report

NAMES = ("startup", "flow", "engine", "gateway")


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], help="which to run (all)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/REPORT.md too")
    arguments = parser.parse_args()
    rows: list[Comparison] = []
    for name in arguments.names or NAMES:
        rows += importlib.import_module(f"benchmarks.{name}").run()
    text = report(rows)
    print(text, end="")
    if arguments.write:
        (pathlib.Path(__file__).parent / "REPORT.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
