"""Files through the dataflow engine beside plain loops that do the same without positions or checkpoints.

python -m benchmarks.flow.connectors
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measure import Comparison, compare, report
from sage.core.api import LocalEnvironment

RECORDS = 500_000


def run() -> list[Comparison]:
    """All rows; both sides hand every record to a function that drops it, or write the same lines."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["SAGE_HOME"] = str(folder / ".sage")
        text, lines, table = folder / "a.txt", folder / "a.jsonl", folder / "a.csv"
        text.write_text("".join(f"line number {n}\n" for n in range(RECORDS)))
        lines.write_text("".join(f'{{"n": {n}, "text": "line {n}"}}\n' for n in range(RECORDS)))
        table.write_text("n,text\n" + "".join(f"{n},line {n}\n" for n in range(RECORDS)))
        return [
            _read("from_text", text, "for line in file", lambda: _dropped(_stripped(text))),
            _read("from_jsonl", lines, "json.loads", lambda: _dropped(_decoded(lines, json.loads))),
            _read("from_jsonl", lines, "msgspec.json.decode", lambda: _dropped(_decoded(lines, msgspec.json.decode))),
            _read("from_csv", table, "csv.DictReader", lambda: _dropped(_rows(table))),
            compare(
                "write_text, exactly once",
                lambda: _written(folder / "out"),
                lambda: _plainly_written(folder / "out.txt"),
                peer_name="file.write",
                unit="records",
                units=RECORDS,
            ),
        ]


def _read(method: str, path: Path, peer_name: str, peer: Callable[[], None]) -> Comparison:
    def ours() -> None:
        env = LocalEnvironment("bench-files")
        stream: Any = getattr(env, method)(path)
        stream.filter(lambda record: False).sink(lambda record: None)
        env.submit()

    return compare(method, ours, peer, peer_name=peer_name, unit="records", units=RECORDS)


def _dropped(records: Iterable[object]) -> None:
    keep: Callable[[object], bool] = lambda record: False  # noqa: E731 - as the user's lambda
    for record in records:
        keep(record)


def _stripped(path: Path) -> Iterable[str]:
    with path.open() as file:
        for line in file:
            yield line.rstrip("\n")


def _decoded(path: Path, decode: Callable[[bytes], object]) -> Iterable[object]:
    with path.open("rb") as file:
        yield from map(decode, file)


def _rows(path: Path) -> Iterable[object]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def _written(folder: Path) -> None:
    env = LocalEnvironment("bench-files")
    env.from_range(RECORDS).write_text(folder, exactly_once=True)
    env.submit()


def _plainly_written(path: Path) -> None:
    with path.open("w") as file:
        for number in range(RECORDS):
            file.write(f"{number}\n")


if __name__ == "__main__":
    print(report(run()), end="")
