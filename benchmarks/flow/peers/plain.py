"""What one would write without an engine, calling the same functions for each record."""

from __future__ import annotations

import time
from typing import Any

import wire
import workload


class Plain:
    """Rows a and b as loops."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)

    def run(self, row: str, how: str = "", mode: str = "") -> dict[str, Any]:
        out: list[Any] = []
        wall, cpu = time.perf_counter(), time.process_time()
        getattr(self, f"_{row}")(out.append)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        (workload.check_a if row == "a" else workload.check_b)(len(self._data) if row == "a" else self._data, out)
        return {"wall": wall, "cpu": cpu}

    def _a(self, put) -> None:
        double, keep, add = (lambda x: x * 2), (lambda y: y % 3 != 0), (lambda y: y + 1)
        for x in self._data:
            y = double(x)
            if keep(y):
                put(add(y))

    def _b(self, put) -> None:
        counts: dict[str, int] = {}
        for key in self._data:
            counts[key] = count = counts.get(key, 0) + 1
            put((key, count))


if __name__ == "__main__":
    wire.serve(Plain())
