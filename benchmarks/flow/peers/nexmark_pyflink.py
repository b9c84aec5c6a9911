"""Nexmark on PyFlink's DataStream API in thread mode; its start is taken off as in `with_pyflink`. Events come as
JSON, as its own Nexmark reads them: tuples of its own do not pass its collection source. q8 is left out:
the Python API has neither window joins nor co-groups."""

from __future__ import annotations

import json
import os
from typing import Any

import wire
from nexmark_work import FOLDER, OUT_OF_ORDER, UNTIMED, Auction, Bid, Person, digest, generate
from pyflink.common import Duration, Time, Types, WatermarkStrategy
from pyflink.common.watermark_strategy import TimestampAssigner
from pyflink.datastream.functions import (
    AggregateFunction,
    AllWindowFunction,
    KeyedCoProcessFunction,
    ProcessWindowFunction,
)
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor
from pyflink.datastream.window import SlidingEventTimeWindows, TumblingEventTimeWindows
from with_pyflink import environment, timed

os.environ["PYTHONPATH"] += os.pathsep + FOLDER  # for the interpreter inside the JVM
ANY = Types.PICKLED_BYTE_ARRAY()
KINDS = {kind.__name__: kind for kind in (Person, Auction, Bid)}


class Times(TimestampAssigner):
    def extract_timestamp(self, value, record_timestamp):
        return value.date_time


class Join(KeyedCoProcessFunction):
    def open(self, context):
        self.people = context.get_list_state(ListStateDescriptor("people", Types.PICKLED_BYTE_ARRAY()))
        self.items = context.get_list_state(ListStateDescriptor("items", Types.PICKLED_BYTE_ARRAY()))

    def process_element1(self, value, ctx):
        self.people.add(value)
        for item in self.items.get() or ():
            yield value.name, value.city, value.state, item.id

    def process_element2(self, value, ctx):
        self.items.add(value)
        for person in self.people.get() or ():
            yield person.name, person.city, person.state, value.id


class Winning(KeyedCoProcessFunction):
    def open(self, context):
        self.auction = context.get_state(ValueStateDescriptor("auction", Types.PICKLED_BYTE_ARRAY()))
        self.best = context.get_state(ValueStateDescriptor("best", Types.PICKLED_BYTE_ARRAY()))
        self.early = context.get_list_state(ListStateDescriptor("early", Types.PICKLED_BYTE_ARRAY()))

    def process_element1(self, value, ctx):
        self.auction.update(value)
        for bid in self.early.get() or ():
            self.offer(value, bid)
        self.early.clear()
        ctx.timer_service().register_event_time_timer(value.expires)

    def process_element2(self, value, ctx):
        auction = self.auction.value()
        if auction is None:
            self.early.add(value)
        else:
            self.offer(auction, value)

    def offer(self, auction, bid):
        best = self.best.value()
        if auction.date_time <= bid.date_time <= auction.expires and (best is None or bid.price > best.price):
            self.best.update(bid)

    def on_timer(self, timestamp, ctx):
        best = self.best.value()
        if best is not None:
            yield self.auction.value().category, best.price


class Count(AggregateFunction):
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
        yield context.window().end, key, next(iter(elements))


class Hottest(AllWindowFunction):
    def apply(self, window, inputs):
        rows = list(inputs)
        most = max(row[2] for row in rows)
        return [row for row in rows if row[2] == most]


class Highest(AllWindowFunction):
    def apply(self, window, inputs):
        rows = list(inputs)
        most = max(bid.price for bid in rows)
        return [(bid.auction, bid.price, bid.bidder, bid.date_time) for bid in rows if bid.price == most]


class Nexmark:
    def prepare(self, records: int) -> None:
        self._events = generate(records)

    def check(self, query: str, records: int) -> str:
        with self._stream(query, self._events[:records])[1].execute_and_collect("check") as results:
            rows = list(results)
        if query == "q4":
            rows = list({row[0]: row for row in rows}.values())
        return digest(rows)

    def time(self, query: str) -> dict[str, Any]:
        start, work = timed(*self._stream(query, self._events[:1000]))
        wall, cpu = timed(*self._stream(query, self._events))
        assert wall > 1.1 * start, f"too few events: {wall:.1f} s with {start:.1f} s for the start"
        return {"wall": wall - start, "cpu": cpu - work}

    def _stream(self, query: str, events: list[Any]):
        env = environment()
        lines = [json.dumps([type(event).__name__, *event]) for event in events]
        stream = env.from_collection(lines, type_info=Types.STRING()).map(read, output_type=ANY)
        if query not in UNTIMED:
            late = Duration.of_millis(OUT_OF_ORDER)
            times = WatermarkStrategy.for_bounded_out_of_orderness(late).with_timestamp_assigner(Times())
            stream = stream.assign_timestamps_and_watermarks(times)
        return env, getattr(self, f"_{query}")(stream)

    def _q0(self, events):
        return bids(events).map(tuple, output_type=ANY)

    def _q1(self, events):
        return bids(events).map(
            lambda bid: (bid.auction, bid.bidder, 0.908 * bid.price, bid.date_time), output_type=ANY
        )

    def _q2(self, events):
        some = bids(events).filter(lambda bid: bid.auction % 123 == 0)
        return some.map(lambda bid: (bid.auction, bid.price), output_type=ANY)

    def _q3(self, events):
        people = events.filter(lambda e: type(e) is Person and e.state in ("OR", "ID", "CA"))
        items = events.filter(lambda e: type(e) is Auction and e.category == 10)
        both = people.connect(items).key_by(lambda p: p.id, lambda a: a.seller, key_type=Types.LONG())
        return both.process(Join(), output_type=ANY)

    def _q4(self, events):
        items = events.filter(lambda e: type(e) is Auction)
        both = items.connect(bids(events)).key_by(lambda a: a.id, lambda b: b.auction, key_type=Types.LONG())
        won = both.process(Winning(), output_type=ANY).map(lambda row: (row[0], row[1], 1), output_type=ANY)
        sums = won.key_by(lambda row: row[0], key_type=Types.LONG()).reduce(
            lambda a, b: (a[0], a[1] + b[1], a[2] + b[2])
        )
        return sums.map(lambda row: (row[0], row[1] / row[2]), output_type=ANY)

    def _q5(self, events):
        keyed = bids(events).key_by(lambda bid: bid.auction, key_type=Types.LONG())
        hop = keyed.window(SlidingEventTimeWindows.of(Time.seconds(10), Time.seconds(2)))
        counts = hop.aggregate(Count(), WithWindow(), accumulator_type=Types.LONG(), output_type=ANY)
        return counts.window_all(TumblingEventTimeWindows.of(Time.seconds(2))).apply(Hottest(), output_type=ANY)

    def _q7(self, events):
        windows = bids(events).window_all(TumblingEventTimeWindows.of(Time.seconds(10)))
        return windows.apply(Highest(), output_type=ANY)


def read(line):
    kind, *fields = json.loads(line)
    return KINDS[kind](*fields)


def bids(events):
    return events.filter(lambda event: type(event) is Bid)


if __name__ == "__main__":
    wire.serve(Nexmark())
