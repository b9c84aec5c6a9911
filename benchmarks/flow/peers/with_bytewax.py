"""bytewax, as its documentation writes these; mode "recovery": epochs of a second, with a recovery store."""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as windowing
import wire
import workload
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

BATCH = 1024  # as ours; `how` can name another
START = datetime(2024, 1, 1, tzinfo=UTC)
CLOCK = windowing.EventClock(
    ts_getter=lambda event: event[2], wait_for_system_duration=timedelta(milliseconds=workload.LATE)
)
WINDOWER = windowing.TumblingWindower(length=timedelta(milliseconds=workload.WINDOW), align_to=START)


class Paced(StatelessSourcePartition):
    """Times of their making, so many a second."""

    def __init__(self, records: int, rate: int) -> None:
        self._records, self._rate = records, rate
        self._given, self._began = 0, time.perf_counter()

    def next_batch(self):
        if self._given == self._records:
            raise StopIteration
        due = min(self._records, int((time.perf_counter() - self._began) * self._rate) + 1)
        fresh = [time.perf_counter_ns() for _ in range(due - self._given)]
        self._given = due
        return fresh

    def next_awake(self):
        wait = self._began + self._given / self._rate - time.perf_counter()
        return datetime.now(UTC) + timedelta(seconds=max(wait, 0))


class PacedSource(DynamicSource):
    def __init__(self, records: int, rate: int) -> None:
        self._made = (records, rate)

    def build(self, step_id, worker_index, worker_count):
        return Paced(*self._made)


class Bytewax:
    """One dataflow a run."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)
        if row == "c":  # its clock wants datetimes: made here, not measured
            self._input = [(key, ms, START + timedelta(milliseconds=ms)) for key, ms in self._data]
        else:
            self._input = self._data

    def run(self, row: str, how: str = "", mode: str = "memory") -> dict[str, Any]:
        out: list[Any] = []
        flow = Dataflow(f"bench_{row}")
        stream = op.input("in", flow, TestingSource(self._input, batch_size=int(how or BATCH)))
        op.output("out", getattr(self, f"_{row}")(stream), TestingSink(out))
        folder = Path(tempfile.mkdtemp(prefix="bench-bytewax-"))
        recovery = None
        if mode == "recovery":
            init_db_dir(folder, 1)
            recovery = RecoveryConfig(folder)
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            run_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=recovery)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._checked(row, out) | {"wall": wall, "cpu": cpu}

    def latency(self, records: int, rate: int) -> dict[str, float]:
        """Milliseconds from a record's making to the last step: p50, p99. A worker of bytewax has no hops."""
        seen: list[int] = []
        flow = Dataflow("latency")
        stream = op.input("in", flow, PacedSource(records, rate))
        same = op.map("same", stream, lambda then: then)
        op.inspect("see", same, lambda step, then: seen.append(time.perf_counter_ns() - then))
        op.output("out", same, TestingSink([]))
        run_main(flow)
        return workload.quantiles(seen, records)

    def _a(self, stream):
        doubled = op.map("double", stream, lambda x: x * 2)
        kept = op.filter("keep", doubled, lambda y: y % 3 != 0)
        return op.map("add", kept, lambda y: y + 1)

    def _b(self, stream):
        def count(state, value):
            state = (state or 0) + 1
            return state, state

        return op.stateful_map("count", op.key_on("key", stream, lambda key: key), count)

    def _c(self, stream):
        return windowing.count_window("count", stream, CLOCK, WINDOWER, lambda event: event[0]).down

    def _checked(self, row: str, out: list[Any]) -> dict[str, Any]:
        if row == "a":
            workload.check_a(len(self._data), out)
        elif row == "b":
            workload.check_b(self._data, out)
        else:
            found = [(key, window * workload.WINDOW, number) for key, (window, number) in out]
            return {"lost": workload.lost(self._data, found)}
        return {}


if __name__ == "__main__":
    wire.serve(Bytewax())
