"""streamz: one call a record. It has no windows of event time."""

from __future__ import annotations

import time
from typing import Any

import wire
import workload
from streamz import Stream


class Streamz:
    """Rows a and b."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)

    def run(self, row: str, how: str = "", mode: str = "") -> dict[str, Any]:
        out: list[Any] = []
        source = Stream()
        getattr(self, f"_{row}")(source).sink(out.append)
        wall, cpu = time.perf_counter(), time.process_time()
        for record in self._data:
            source.emit(record)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        (workload.check_a if row == "a" else workload.check_b)(len(self._data) if row == "a" else self._data, out)
        return {"wall": wall, "cpu": cpu}

    def _a(self, source):
        return source.map(lambda x: x * 2).filter(lambda y: y % 3 != 0).map(lambda y: y + 1)

    def _b(self, source):
        def count(counts, key):
            counts[key] = number = counts.get(key, 0) + 1
            return counts, (key, number)

        return source.accumulate(count, start={}, returns_state=True)


if __name__ == "__main__":
    wire.serve(Streamz())
