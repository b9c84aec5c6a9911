"""pathway in streaming mode, fed by its Python connector. It puts out changes of each of its commits, not of each
record."""

from __future__ import annotations

import time
from typing import Any

import pathway as pw
import wire
import workload
from pathway.internals.parse_graph import G

now = time.perf_counter_ns


class Numbers(pw.Schema):
    x: int


class Keys(pw.Schema):
    key: str


class Events(pw.Schema):
    key: str
    t: int


class Pathway:
    """One graph a run."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)

    def run(self, row: str, how: str = "", mode: str = "") -> dict[str, Any]:
        out: list[Any] = []
        G.clear()
        table = getattr(self, f"_{row}")(out)
        pw.io.subscribe(table, on_change=self._change(row, out))
        wall, cpu = time.perf_counter(), time.process_time()
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return self._checked(row, out) | {"wall": wall, "cpu": cpu}

    def latency(self, records: int, rate: int) -> dict[str, float]:
        """Milliseconds from a record's making to the callback of its change: p50, p99. It commits every millisecond."""
        seen: list[int] = []

        class Paced(pw.io.python.ConnectorSubject):
            def run(self):
                began, given = time.perf_counter(), 0
                while given < records:
                    due = min(records, int((time.perf_counter() - began) * rate) + 1)
                    for _ in range(due - given):
                        self.next(x=time.perf_counter_ns())
                    given = due
                    time.sleep(max(0.0, began + given / rate - time.perf_counter()))

        G.clear()
        table = pw.io.python.read(Paced(), schema=Numbers, autocommit_duration_ms=1)
        same = table.select(x=pw.apply_with_type(lambda then: then, int, table.x))
        pw.io.subscribe(same, on_change=lambda key, row, time, is_addition: seen.append(now() - row["x"]))
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        return workload.quantiles(seen, records)

    def _source(self, schema, feed):
        class Subject(pw.io.python.ConnectorSubject):
            def run(self):
                feed(self.next)

        return pw.io.python.read(Subject(), schema=schema, autocommit_duration_ms=100)

    def _a(self, out):
        def feed(put):
            for x in self._data:
                put(x=x)

        table = self._source(Numbers, feed)
        doubled = table.select(y=pw.apply_with_type(lambda x: x * 2, int, table.x))
        kept = doubled.filter(pw.apply_with_type(lambda y: y % 3 != 0, bool, doubled.y))
        return kept.select(value=pw.apply_with_type(lambda y: y + 1, int, kept.y))

    def _b(self, out):
        def feed(put):
            for key in self._data:
                put(key=key)

        table = self._source(Keys, feed)
        return table.groupby(table.key).reduce(table.key, value=pw.reducers.count())

    def _c(self, out):
        def feed(put):
            for key, t in self._data:
                put(key=key, t=t)

        table = self._source(Events, feed)
        windows = table.windowby(
            table.t,
            window=pw.temporal.tumbling(duration=workload.WINDOW),
            instance=table.key,
            behavior=pw.temporal.exactly_once_behavior(shift=workload.LATE),
        )
        return windows.reduce(key=pw.this._pw_instance, start=pw.this._pw_window_start, value=pw.reducers.count())

    def _change(self, row: str, out: list[Any]):
        if row == "a":
            return lambda key, row, time, is_addition: out.append(row["value"])
        if row == "b":
            return lambda key, row, time, is_addition: out.append((row["key"], row["value"])) if is_addition else None
        return lambda key, row, time, is_addition: (
            out.append((row["key"], row["start"], row["value"])) if is_addition else None
        )

    def _checked(self, row: str, out: list[Any]) -> dict[str, Any]:
        if row == "a":
            workload.check_a(len(self._data), sorted(out))
        elif row == "b":
            workload.check_b(self._data, out, every=False)
        else:
            return {"lost": workload.lost(self._data, out)}
        return {}


if __name__ == "__main__":
    wire.serve(Pathway())
