"""This repository's engine. Modes: memory; rocksdb (exactly-once checkpoints every second)."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import wire
import workload

from sage.core.api import LocalEnvironment
from sage.core.api.function import AggregateFunction, KeyedProcessFunction
from sage.core.api.state import ValueStateDescriptor
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import TumblingEventTimeWindows

CHECKPOINTS = {"checkpoint.interval": "1s", "checkpointing": "exactly_once"}
CONFIG: dict[str, dict[str, Any]] = {
    "memory": {},
    "memory, checkpoints": CHECKPOINTS,
    "rocksdb, checkpoints": CHECKPOINTS | {"state.backend": "rocksdb"},
}
TIMES = WatermarkStrategy.for_bounded_out_of_orderness(workload.LATE).with_timestamp_assigner(lambda event: event[1])


class CountKeys(KeyedProcessFunction[str, str, tuple[str, int]]):
    """A count of one's own, through the interface of state."""

    def open(self, context):
        self.seen = context.get_state(ValueStateDescriptor("seen", 0))

    def process_element(self, value, context, out):
        count = self.seen.value() + 1
        self.seen.update(count)
        out.collect((value, count))


class CountEvents(AggregateFunction[Any, int, int]):
    """A count of one's own, for a window."""

    def create_accumulator(self):
        return 0

    def add(self, value, accumulator):
        return accumulator + 1

    def get_result(self, accumulator):
        return accumulator

    def merge(self, accumulator, other):
        return accumulator + other


class Ours:
    """Rows by name; each run is a job of its own with a state folder of its own."""

    def __init__(self) -> None:
        self._inputs: dict[tuple[str, int], Any] = {}
        self._replay: dict[tuple[str, int], int] = {}

    def prepare(self, row: str, records: int) -> None:
        """Make the input, outside of what is measured."""
        self._chosen = (row, records)
        if self._chosen not in self._inputs:
            self._inputs = {key: data for key, data in self._inputs.items() if key[0] == row}
            self._inputs[self._chosen] = workload.data_of(row, records)

    def run(self, row: str, how: str = "process", mode: str = "memory") -> dict[str, Any]:
        data = self._inputs[self._chosen]
        out: list[Any] = []
        folder = Path(tempfile.mkdtemp(prefix="sage-bench-"))
        os.environ["SAGE_HOME"] = str(folder / ".sage")
        os.chdir(folder)
        try:
            env = LocalEnvironment(f"bench-{row}", CONFIG[mode] | {"checkpoint.dir": str(folder / "checkpoints")})
            getattr(self, f"_{row}")(env.from_collection(data), how).sink(out.append)
            wall, cpu = time.perf_counter(), time.process_time()
            handle = env.submit()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            made = len([each for each in handle.checkpoints() if each.state == "completed"])
        finally:
            os.chdir("/")
            shutil.rmtree(folder, ignore_errors=True)
        return self._checked(row, how, data, out) | {"wall": wall, "cpu": cpu, "checkpoints": made}

    def latency(self, records: int, rate: int, buffer_timeout: str) -> dict[str, float]:
        """Milliseconds from a record's making to its sink, over two hops between tasks: p50, p99."""
        seen: list[int] = []
        now = time.perf_counter_ns
        env = LocalEnvironment("bench-latency", {"chaining": False, "buffer.timeout": buffer_timeout})
        made = env.from_generator(lambda number: now(), records, rate=rate)
        made.map(lambda then: then).sink(lambda then: seen.append(now() - then))
        env.submit()
        return workload.quantiles(seen, records)

    def _a(self, stream, how):
        return stream.map(lambda x: x * 2).filter(lambda y: y % 3 != 0).map(lambda y: y + 1)

    def _b(self, stream, how):
        keyed = stream.map(lambda key: (key, 1)).key_by(lambda pair: pair[0]) if how == "reduce" else None
        if keyed is not None:
            return keyed.reduce(lambda one, two: (one[0], one[1] + two[1]))
        keyed = stream.key_by(lambda key: key)
        return keyed.count() if how == "count" else keyed.process(CountKeys)

    def _c(self, stream, how):
        keyed = stream.assign_timestamps_and_watermarks(TIMES).key_by(lambda event: event[0])
        windows = keyed.window(TumblingEventTimeWindows.of(workload.WINDOW))
        if how == "count":
            return windows.count()
        return windows.aggregate(CountEvents, lambda key, window, values, out: [(key, window, values[0])])

    def _checked(self, row: str, how: str, data: Any, out: list[Any]) -> dict[str, Any]:
        if row == "a":
            workload.check_a(len(data), out)
        elif row == "b":
            workload.check_b(data, out)
        else:
            again = hash(tuple(out))
            before = self._replay.setdefault((how, len(data)), again)
            found = [(key, window.start, number) for key, window, number in out]
            return {"lost": workload.lost(data, found), "identical": before == again}
        return {}


if __name__ == "__main__":
    wire.serve(Ours())
