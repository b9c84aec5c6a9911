"""Nexmark on this repository's engine: the queries of `benchmarks/flow/nexmark`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))
import wire

from benchmarks.flow.nexmark.digest import digest
from benchmarks.flow.nexmark.events import generate
from benchmarks.flow.nexmark.queries import run
from benchmarks.flow.nexmark.reference import settled


class Nexmark:
    def __init__(self) -> None:
        os.environ["SAGE_HOME"] = tempfile.mkdtemp(prefix="bench-nexmark-")

    def prepare(self, records: int) -> None:
        self._events = generate(records)

    def check(self, query: str, records: int) -> str:
        return digest(settled(query, run(query, self._events[:records])))

    def time(self, query: str) -> dict[str, Any]:
        wall, cpu = time.perf_counter(), time.process_time()
        run(query, self._events)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    wire.serve(Nexmark())
