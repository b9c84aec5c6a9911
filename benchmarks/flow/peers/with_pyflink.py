"""PyFlink's DataStream API in thread mode (Python inside the JVM), the default heap state.

A run over 1,000 records, which is the start of a job, is taken off its time.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import wire
import workload
from pyflink.common import Configuration, Duration, Time, Types, WatermarkStrategy
from pyflink.common.watermark_strategy import TimestampAssigner
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink
from pyflink.datastream.functions import AggregateFunction, KeyedProcessFunction, ProcessWindowFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.datastream.window import TumblingEventTimeWindows
from pyflink.java_gateway import get_gateway

# The interpreter inside the JVM does not know of virtual environments.
os.environ["PYTHONPATH"] = os.pathsep.join([sysconfig.get_path("purelib"), os.environ.get("PYTHONPATH", "")])
PAIR = Types.TUPLE([Types.STRING(), Types.LONG()])
RESULT = Types.TUPLE([Types.STRING(), Types.LONG(), Types.LONG()])


class CountKeys(KeyedProcessFunction):
    def open(self, runtime_context: RuntimeContext):
        self.seen = runtime_context.get_state(ValueStateDescriptor("seen", Types.LONG()))

    def process_element(self, value, ctx):
        count = (self.seen.value() or 0) + 1
        self.seen.update(count)
        yield value, count


class CountEvents(AggregateFunction):
    def create_accumulator(self):
        return 0

    def add(self, value, accumulator):
        return accumulator + 1

    def get_result(self, accumulator):
        return accumulator

    def merge(self, a, b):
        return a + b


class WithWindow(ProcessWindowFunction):
    def process(self, key, context, elements):
        yield key, context.window().start, next(iter(elements))


class Times(TimestampAssigner):
    def extract_timestamp(self, value, record_timestamp):
        return value[1]


def family() -> tuple[float, int]:
    """Processor seconds and resident bytes of this process and the JVM, which is in its session."""
    seconds, resident = 0.0, 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == os.getsid(0):
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return seconds, resident


def environment() -> StreamExecutionEnvironment:
    """Thread mode, parallelism 1."""
    config = Configuration()
    config.set_string("python.execution-mode", "thread")
    config.set_string("parallelism.default", "1")
    config.set_string("python.executable", sys.executable)
    config.set_string("python.client.executable", sys.executable)
    return StreamExecutionEnvironment.get_execution_environment(config)


def timed(env: StreamExecutionEnvironment, stream: Any) -> tuple[float, float]:
    """Wall and processor seconds of a job, into a sink that discards: fetching results record by record into this
    process would dominate."""
    stream.sink_to(Sink(get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()))
    wall, cpu = time.perf_counter(), family()[0]
    env.execute("bench")
    return time.perf_counter() - wall, family()[0] - cpu


class PyFlink:
    """One job a run; the JVM stays."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)

    def run(self, row: str, how: str = "", mode: str = "") -> dict[str, Any]:
        self.how = how
        short = self._data[:1000]
        start, work = min(self._timed(row, short) for _ in range(2))
        wall, cpu = self._timed(row, self._data)
        with self._stream(row, short)[1].execute_and_collect("bench") as results:
            self._check(row, short, list(results))
        assert wall > 1.2 * start, f"too few records: {wall:.1f} s with {start:.1f} s for the start"
        return {"wall": wall - start, "cpu": cpu - work, "start": start, "rss": family()[1]}

    def _timed(self, row: str, data: Any) -> tuple[float, float]:
        return timed(*self._stream(row, data))

    def _stream(self, row: str, data: Any) -> tuple[StreamExecutionEnvironment, Any]:
        env = environment()
        kind = {"a": Types.LONG(), "b": Types.STRING(), "c": PAIR}[row]
        return env, getattr(self, f"_{row}")(env.from_collection(data, type_info=kind))

    def _a(self, stream):
        doubled = stream.map(lambda x: x * 2, output_type=Types.LONG())
        return doubled.filter(lambda y: y % 3 != 0).map(lambda y: y + 1, output_type=Types.LONG())

    def _b(self, stream):
        if self.how == "reduce":
            pairs = stream.map(lambda key: (key, 1), output_type=PAIR)
            return pairs.key_by(lambda p: p[0], key_type=Types.STRING()).reduce(lambda x, y: (x[0], x[1] + y[1]))
        return stream.key_by(lambda key: key, key_type=Types.STRING()).process(CountKeys(), output_type=PAIR)

    def _c(self, stream):
        late = Duration.of_millis(workload.LATE)
        strategy = WatermarkStrategy.for_bounded_out_of_orderness(late).with_timestamp_assigner(Times())
        keyed = stream.assign_timestamps_and_watermarks(strategy).key_by(lambda e: e[0], key_type=Types.STRING())
        windows = keyed.window(TumblingEventTimeWindows.of(Time.milliseconds(workload.WINDOW)))
        return windows.aggregate(CountEvents(), WithWindow(), accumulator_type=Types.LONG(), output_type=RESULT)

    def _check(self, row: str, data: Any, out: list[Any]) -> None:
        if row == "a":
            workload.check_a(len(data), out)
        elif row == "b":
            workload.check_b(data, [tuple(pair) for pair in out])
        else:
            assert not workload.lost(data, [tuple(each) for each in out])


if __name__ == "__main__":
    wire.serve(PyFlink())
