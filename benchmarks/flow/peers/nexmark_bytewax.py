"""Nexmark on bytewax. q4 is left out: its windows and joins know no time at which an auction ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as windowing
import wire
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from nexmark_work import OUT_OF_ORDER, Auction, Bid, Person, digest, generate

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK = windowing.EventClock(
    ts_getter=lambda event: EPOCH + timedelta(milliseconds=event.date_time),
    wait_for_system_duration=timedelta(milliseconds=OUT_OF_ORDER),
)
TEN = windowing.TumblingWindower(length=timedelta(seconds=10), align_to=EPOCH)
HOP = windowing.SlidingWindower(length=timedelta(seconds=10), offset=timedelta(seconds=2), align_to=EPOCH)


class Nexmark:
    def prepare(self, records: int) -> None:
        self._events = generate(records)

    def check(self, query: str, records: int) -> str:
        return digest(self._run(query, self._events[:records]))

    def time(self, query: str) -> dict[str, Any]:
        wall, cpu = time.perf_counter(), time.process_time()
        self._run(query, self._events)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def _run(self, query: str, events: list[Any]) -> list[Any]:
        out: list[Any] = []
        flow = Dataflow(query)
        stream = op.input("in", flow, TestingSource(events, batch_size=1024))
        op.output("out", getattr(self, f"_{query}")(stream), TestingSink(out))
        run_main(flow)
        return out

    def _q0(self, events):
        return op.map("row", bids(events), tuple)

    def _q1(self, events):
        return op.map("euro", bids(events), lambda bid: (bid.auction, bid.bidder, 0.908 * bid.price, bid.date_time))

    def _q2(self, events):
        some = op.filter("some", bids(events), lambda bid: bid.auction % 123 == 0)
        return op.map("row", some, lambda bid: (bid.auction, bid.price))

    def _q3(self, events):
        def wanted(event):
            if type(event) is Person:
                return event.state in ("OR", "ID", "CA")
            return type(event) is Auction and event.category == 10

        def join(state, event):
            people, items = state or ([], [])
            if type(event) is Person:
                people.append(event)
                pairs = [(event, item) for item in items]
            else:
                items.append(event)
                pairs = [(person, event) for person in people]
            return (people, items), [(p.name, p.city, p.state, item.id) for p, item in pairs]

        keyed = op.key_on("key", op.filter("wanted", events, wanted), lambda e: str(getattr(e, "seller", e.id)))
        return op.key_rm("rows", op.stateful_flat_map("join", keyed, join))

    def _q5(self, events):
        counts = windowing.count_window("count", bids(events), CLOCK, HOP, lambda bid: str(bid.auction)).down
        by_window = op.map("window", counts, lambda row: (str(row[1][0]), (int(row[0]), row[1][1])))

        def best(kept, pair):
            if not kept or pair[1] > kept[0][1]:
                return [pair]
            return [*kept, pair] if pair[1] == kept[0][1] else kept

        hottest = op.fold_final("hottest", by_window, list, best)
        return op.flat_map("rows", hottest, lambda row: [(2000 * int(row[0]) + 10_000, *pair) for pair in row[1]])

    def _q7(self, events):
        def best(kept, bid):
            if not kept or bid.price > kept[0].price:
                return [bid]
            return [*kept, bid] if bid.price == kept[0].price else kept

        keyed = op.key_on("all", bids(events), lambda bid: "all")
        highest = windowing.fold_window("highest", keyed, CLOCK, TEN, list, best, lambda a, b: a + b).down
        return op.flat_map(
            "rows", highest, lambda row: [(bid.auction, bid.price, bid.bidder, bid.date_time) for bid in row[1][1]]
        )

    def _q8(self, events):
        people = op.filter("people", events, lambda event: type(event) is Person)
        items = op.filter("items", events, lambda event: type(event) is Auction)
        joined = windowing.join_window(
            "join",
            CLOCK,
            TEN,
            op.key_on("id", people, lambda person: str(person.id)),
            op.key_on("seller", items, lambda item: str(item.seller)),
            emit_mode="complete",
        ).down
        return op.map("rows", joined, lambda row: (row[1][1][0].id, row[1][1][0].name))


def bids(events):
    return op.filter("bids", events, lambda event: type(event) is Bid)


if __name__ == "__main__":
    wire.serve(Nexmark())
