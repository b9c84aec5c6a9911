"""Chains as trees of stages: event times, watermarks, side outputs, inputs, calls of others (SPEC K4, K6)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.unit.flow.runtime.harness import END, added, of, taken, through, untouched, wired

from sage.core.api.output_tag import OutputTag
from sage.core.runtime.events import (
    FINAL_WATERMARK,
    Batch,
    EndOfStream,
    LatencyMarker,
    StreamStatus,
    Watermark,
)
from sage.core.runtime.operators.base import Operator, OperatorContext


class Log(Operator):
    """Notes every call; emits what `reply` makes of each record."""

    def __init__(self, log: list[Any], reply: Callable[[Any], list[Any]] = lambda record: [record]) -> None:
        self.log, self.reply = log, reply

    def process(self, batch: Batch, port: int) -> None:
        self.log.append((port, batch.records, batch.timestamps))
        self.context.out.timed = self.context.out.timed or batch.timestamps is not None
        for index, record in enumerate(batch.records):
            for reply in self.reply(record):
                self.context.out.emit(reply, None if batch.timestamps is None else batch.timestamps[index])

    def on_watermark(self, watermark: int) -> int | None:
        self.log.append(watermark)
        return watermark

    def on_status(self, idle: bool) -> bool | None:
        self.log.append("idle" if idle else "active")
        return idle

    def finish(self) -> None:
        self.log.append("finish")
        self.context.out.emit("last", 99)

    def close(self) -> None:
        self.log.append("close")


class TestTimes:
    def test_stateless_operators_keep_event_times(self) -> None:
        def build(stream: Any) -> Any:
            return stream.map(lambda x: x + 1).filter(lambda x: x != 3).flat_map(lambda x: [x] * (x % 3))

        got = through(build, of(1, 2, 3, 4, at=[10, 20, 30, 40]), Watermark(40), of(7, 8))
        assert got == [of(2, 2, 4, 5, 5, at=[10, 10, 30, 40, 40]), Watermark(40), of(8, 8), END]

    def test_records_with_and_without_times_do_not_mix(self) -> None:
        stream = untouched().rebalance().map(lambda x: x)
        stream.rebalance().sink(lambda record: None)
        tasks, gates = wired(stream, buffer_timeout=1000.0)
        for item in (of(1, 2), of(3, at=[5]), of(4), END):
            gates[0].put(0, item)
        tasks[1].run()
        batches = []
        while (got := gates[1].take(0)) is not None and isinstance(got[1], Batch):
            batches.append(got[1])
        assert batches == [of(1), of(2), of(3, at=[5]), of(4)]

    def test_operators_see_times_through_generated_code(self) -> None:
        log: list[Any] = []
        got = through(
            lambda s: added(s.map(lambda x: x * 2), lambda: Log(log)).map(str), of(1, 2, at=[7, 8]), Watermark(8)
        )
        assert got == [of("2", "4", at=[7, 8]), Watermark(8), of("last", at=[99]), END]
        assert [entry for entry in log if isinstance(entry, tuple)] in (
            [(0, [2, 4], [7, 8])],
            [(0, [2], [7]), (0, [4], [8])],
        )


class TestEvents:
    def test_the_end_comes_stage_by_stage(self) -> None:
        """Event time ends and the first operator finishes before the second hears of either."""
        first: list[Any] = []
        second: list[Any] = []
        through(lambda s: added(added(s, lambda: Log(first)), lambda: Log(second)), of(1), Watermark(3))
        assert first == [(0, [1], None), 3, FINAL_WATERMARK, "finish", "close"]
        assert second == [(0, [1], None), 3, (0, ["last"], None), FINAL_WATERMARK, "finish", "close"]

    def test_a_stream_that_was_stopped_has_not_ended(self) -> None:
        log: list[Any] = []
        stream = added(untouched().rebalance(), lambda: Log(log))
        stream.rebalance().sink(print)
        tasks, gates = wired(stream)
        for item in (of(1), EndOfStream(drained=False)):
            gates[0].put(0, item)
        assert tasks[1].run() is None
        assert log == [(0, [1], None), "close"]
        assert taken(gates[1]) == [of(1), EndOfStream(drained=False)]

    def test_events_that_an_operator_makes_stay_between_its_records(self) -> None:
        class Punctuated(Operator):
            def process(self, batch: Batch, port: int) -> None:
                self.context.out.timed = True
                for record in batch.records:
                    self.context.out.emit(record, record)
                    self.context.out.watermark(record)
                    if record == 2:
                        self.context.out.idle(True)

            def on_watermark(self, watermark: int) -> int | None:
                return None

        log: list[Any] = []
        got = through(lambda s: added(added(s, Punctuated), lambda: Log(log)), of(1), of(2), Watermark(50))
        assert log[:5] == [(0, [1], [1]), 1, (0, [2], [2]), 2, "idle"]
        assert got[:4] == [of(1, at=[1]), Watermark(1), of(2, at=[2]), Watermark(2)]
        assert Watermark(50) not in got

    def test_statuses_and_latency_markers_go_through(self) -> None:
        marker = LatencyMarker(0.0, "source", 0)
        log: list[Any] = []
        got = through(lambda s: added(s, lambda: Log(log)), marker, StreamStatus(idle=True), StreamStatus(idle=False))
        assert got[:3] == [marker, StreamStatus(idle=True), StreamStatus(idle=False)]
        assert log[:2] == ["idle", "active"]

    def test_a_marker_that_comes_to_the_end_tells_the_latency(self) -> None:
        stream = untouched().rebalance()
        stream.sink(lambda record: None)
        tasks, gates = wired(stream)
        gates[0].put(0, LatencyMarker(0.0, "source", 0))
        gates[0].put(0, END)
        tasks[1].run()
        assert len(tasks[1].latencies) == 1

    def test_sources_send_markers(self) -> None:
        stream = untouched().env.from_collection(range(50)).map(lambda x: time.sleep(0.001))
        stream.rebalance().sink(lambda record: None)
        tasks, _ = wired(stream, latency_interval=0.01)
        tasks[-2].run()
        tasks[-1].run()
        assert tasks[-1].latencies
        assert all(0 <= latency < 60 for latency in tasks[-1].latencies)

    def test_timers_fire_before_the_watermark_is_told(self) -> None:
        class Timed(Log):
            def open(self, context: OperatorContext) -> None:
                super().open(context)
                self.timers = context.timers.service("t", lambda at, key, _: self.log.append(("timer", at, key)), None)

            def process(self, batch: Batch, port: int) -> None:
                for record in batch.records:
                    self.timers.register_event_time(record, "key")

        log: list[Any] = []
        through(lambda s: added(s.map(int).key_by(str), lambda: Timed(log)), of(5, 3, 9), Watermark(5))
        assert log == [
            ("timer", 3, "key"),
            ("timer", 5, "key"),
            5,
            ("timer", 9, "key"),
            FINAL_WATERMARK,
            "finish",
            "close",
        ]


class TestTrees:
    def test_side_outputs_go_to_who_reads_them(self) -> None:
        class Sorting(Operator):
            def process(self, batch: Batch, port: int) -> None:
                for record in batch.records:
                    if record < 0:
                        self.context.out.output("negative", record, -record)
                    elif record > 10:
                        self.context.out.output("unread", record)
                    else:
                        self.context.out.emit(record)

        sides: list[Any] = []
        timed: list[Any] = []

        def build(stream: Any) -> Any:
            main = added(stream, Sorting)
            side = main.get_side_output(OutputTag("negative"))
            side.map(lambda x: x * 2).sink(sides.append)
            added(side, lambda: Log(timed))
            return main

        got = through(build, of(1, -2, 30, 4, -5))
        assert got == [of(1, 4), END]
        assert sides == [-4, -10]
        entries = [entry for entry in timed if isinstance(entry, tuple)]
        assert [record for _, records, _ in entries for record in records] == [-2, -5]
        assert [time for _, _, times in entries for time in times] == [2, 5]

    def test_two_inputs_are_told_apart_by_port(self) -> None:
        log: list[Any] = []
        env = untouched().env
        left, right = env.from_collection([0]).rebalance(), env.from_collection([0]).rebalance()
        added(left, lambda: Log(log), right).rebalance().sink(print)
        tasks, gates = wired(left)
        both = next(task for task in tasks if task.plan.head.node.kind == "operator")
        gate = gates[0]
        for sender, item in ((0, of(1)), (1, of(2)), (0, Watermark(9)), (1, Watermark(4)), (0, END), (1, END)):
            gate.put(sender, item)
        assert both.run() is None
        assert log == [(0, [1], None), (1, [2], None), 4, FINAL_WATERMARK, "finish", "close"]

    @pytest.mark.parametrize("reuse", [True, False])
    def test_without_reuse_a_consumer_may_change_its_records(self, reuse: bool) -> None:
        seen: list[Any] = []

        def noted(record: list[Any]) -> list[Any]:
            seen.append(list(record))
            return [record]

        def build(stream: Any) -> Any:
            lists = stream.map(lambda x: [x])
            lists.map(lambda record: record.append("changed")).sink(lambda record: None)
            added(lists, lambda: Log([], noted))
            return lists

        got = through(build, of(1, 2), object_reuse=reuse)
        wanted = [[1, "changed"], [2, "changed"]] if reuse else [[1], [2]]
        assert seen == wanted
        assert got == [of(*wanted), END]


class TestCalls:
    def test_what_a_call_of_another_thread_emits_goes_on_at_once(self) -> None:
        class Late(Operator):
            def process(self, batch: Batch, port: int) -> None:
                emit = partial(self.context.out.emit, batch.records[0])
                threading.Timer(0.01, self.context.mailbox, [emit]).start()

        stream = added(untouched().rebalance(), Late)
        stream.rebalance().sink(print)
        tasks, gates = wired(stream, buffer_timeout=0.0)
        worker = threading.Thread(target=tasks[1].run)
        worker.start()
        gates[0].put(0, of("late"))
        assert gates[1].take(10) == (0, of("late"))  # while the input is silent
        gates[0].put(0, END)
        worker.join(10)
        assert not worker.is_alive()

    def test_an_operator_that_waits_lets_no_record_overtake(self) -> None:
        """The second operator waits in the middle of a batch; what the first one emits meanwhile comes behind it."""

        class First(Operator):
            def process(self, batch: Batch, port: int) -> None:
                self.context.out.emit(batch.records[0])
                self.context.mailbox(lambda: self.context.out.emit("behind"))

        class Second(Operator):
            def process(self, batch: Batch, port: int) -> None:
                for record in batch.records:
                    done: list[bool] = []
                    self.context.mailbox(lambda: done.append(True))  # noqa: B023 - runs before the next round
                    self.context.wait(lambda: bool(done))  # noqa: B023
                    self.context.out.emit(record)

        got = through(lambda s: added(added(s.flat_map(lambda x: [x, -x]), First), Second), of(1, 2))
        records = [record for item in got if isinstance(item, Batch) for record in item.records]
        assert [record for record in records if record != "behind"] in ([1, 2], [1, -1, 2, -2], [1, -1, 2])
        assert records.index("behind") > 0

    def test_processing_timers_fire_while_the_input_is_silent(self) -> None:
        class Timed(Operator):
            def open(self, context: OperatorContext) -> None:
                super().open(context)
                self.timers = context.timers.service("t", None, lambda at, key, _: context.out.emit(key))

            def process(self, batch: Batch, port: int) -> None:
                for record in batch.records:
                    self.timers.register_processing_time(self.context.clock.now_ms() + 5, record)

        stream = added(untouched().rebalance(), Timed)
        stream.rebalance().sink(print)
        tasks, gates = wired(stream)
        worker = threading.Thread(target=tasks[1].run)
        worker.start()
        gates[0].put(0, of("due"))
        assert gates[1].take(10) == (0, of("due"))
        gates[0].put(0, END)
        worker.join(10)
        assert not worker.is_alive()


def test_a_batch_waits_for_the_timeout_only_once() -> None:
    """At its source; a task behind hands on what it has as soon as nothing else waits for it."""
    stream = untouched().rebalance().map(lambda x: x)
    stream.rebalance().sink(print)
    tasks, gates = wired(stream, buffer_timeout=1000.0)
    worker = threading.Thread(target=tasks[1].run)
    worker.start()
    gates[0].put(0, of(1))
    assert gates[1].take(10) == (0, of(1))
    gates[0].put(0, END)
    worker.join(10)
    assert not worker.is_alive()


def test_a_slow_sink_makes_its_source_wait() -> None:
    """Shares of time: the sink is busy, the source back-pressured; an operator is not billed for those below it."""
    stream = untouched().env.from_collection(range(60)).map(lambda x: x)
    stream.rebalance().map(lambda x: x, name="quick")._operator("slow", Slow).sink(lambda record: None)
    tasks, _ = wired(stream, channel_capacity=1)
    source, sink = tasks[-2:]
    threads = [threading.Thread(target=task.run) for task in (source, sink)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert source.meter.blocked_s > 4 * source.meter.busy_s
    assert sink.meter.busy_s > 0.1
    assert sink.meter.blocked_s == 0
    quick, slow, _ = sink.chain.operators
    assert slow.busy_s > 4 * quick.busy_s
    assert source.chain.operators[0].busy_s < 0.1


class Slow(Operator):
    def process(self, batch: Batch, port: int) -> None:
        for record in batch.records:
            time.sleep(0.002)
            self.context.out.emit(record)


class TestLife:
    def test_operators_are_closed_though_one_cannot_open(self) -> None:
        log: list[Any] = []

        class Broken(Log):
            def open(self, context: OperatorContext) -> None:
                raise ValueError("no disk")

        stream = added(added(untouched().rebalance(), lambda: Broken(log)), lambda: Log(log))
        tasks, _ = wired(stream)
        failed = tasks[1].run()
        assert failed is not None
        assert "operator" in str(failed)
        assert failed.cause == "ValueError: no disk in open()"
        assert log == ["close", "close"]

    def test_what_an_operator_raises_is_told_with_its_record(self) -> None:
        def reply(record: int) -> list[Any]:
            return [1 // record]

        stream = added(untouched().rebalance(), lambda: Log([], reply), *()).map(str)
        tasks, gates = wired(stream)
        gates[0].put(0, of(2, 0))
        failed = tasks[1].run()
        assert failed is not None
        assert "'operator' failed" in str(failed)
        assert failed.cause is not None
        assert failed.cause.startswith("ZeroDivisionError")

    def test_operators_are_flushed_when_the_stream_pauses(self) -> None:
        class Held(Operator):
            def __init__(self) -> None:
                self.kept: list[Any] = []

            def process(self, batch: Batch, port: int) -> None:
                self.kept += batch.records

            def flush(self) -> None:
                for record in self.kept:
                    self.context.out.emit(record)
                self.kept.clear()

        stream = added(untouched().rebalance(), Held)
        stream.rebalance().sink(print)
        tasks, gates = wired(stream, buffer_timeout=0.0)
        worker = threading.Thread(target=tasks[1].run)
        worker.start()
        gates[0].put(0, of("held"))
        assert gates[1].take(10) == (0, of("held"))
        gates[0].put(0, END)
        worker.join(10)
