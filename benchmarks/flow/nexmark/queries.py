"""Nexmark's queries on the DataStream API. Each takes the streams and gives the stream of its results.

What a query asks is in its docstring; `reference.py` computes the same in SQL. Queries that put out updates (q4, q16 to
q19) are compared by what holds at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.flow.nexmark.events import Bid, Event
from benchmarks.flow.nexmark.functions import (
    DAY,
    ByAuction,
    ByChannel,
    Highest,
    Hottest,
    MeanPrice,
    TopTen,
    WinningBid,
    first,
    latest,
)
from benchmarks.flow.nexmark.sources import Streams
from sage.core.api import DataStream, FlatMapFunction, FunctionContext, LocalEnvironment
from sage.core.api.windows import (
    EventTimeSessionWindows,
    SlidingEventTimeWindows,
    TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
)
from sage.core.testing import PAUSE, MarkedSource, virtual_time

EURO = 0.908
STATES = ("OR", "ID", "CA")
CATEGORY = 10
UNTIMED = ("q0", "q1", "q2", "q3")  # they ask for no time
SIDE_INPUT = [(key, f"value {key}") for key in range(0, 10_000, 3)]
Rows = DataStream[Any]


def q0(streams: Streams) -> Rows:
    """All bids as they are: what the machinery costs."""
    return streams.bids.map(tuple)


def q1(streams: Streams) -> Rows:
    """Prices in euros."""
    return streams.bids.map(lambda bid: (bid.auction, bid.bidder, EURO * bid.price, bid.date_time))


def q2(streams: Streams) -> Rows:
    """Bids on some auctions."""
    return streams.bids.filter(lambda bid: bid.auction % 123 == 0).map(lambda bid: (bid.auction, bid.price))


def q3(streams: Streams) -> Rows:
    """Who sells things of a category in three states (a join without windows)."""
    sellers = streams.persons.filter(lambda person: person.state in STATES).key_by(lambda person: person.id)
    items = streams.auctions.filter(lambda auction: auction.category == CATEGORY).key_by(lambda auction: auction.seller)
    return sellers.connect(items).join(lambda person, auction: (person.name, person.city, person.state, auction.id))


def q4(streams: Streams) -> Rows:
    """The mean of the winning prices of each category."""
    return _won(streams).key_by(lambda won: won[0].category).aggregate(MeanPrice)


def q5(streams: Streams) -> Rows:
    """The auctions with most bids in the last 10 s, every 2 s."""
    counts = streams.bids.key_by(lambda bid: bid.auction).window(SlidingEventTimeWindows.of("10s", "2s")).count()
    pairs = counts.map(lambda result: (result.key, result.value))
    # The results of one window have its last millisecond as their time: those of each stand in a window of 2 s alone.
    hottest = pairs.window_all(TumblingEventTimeWindows.of("2s"))
    return hottest.aggregate(Hottest, lambda key, window, values, out: [(window.end, *pair) for pair in first(values)])


def q7(streams: Streams) -> Rows:
    """The highest bids of every 10 s."""
    windows = streams.bids.window_all(TumblingEventTimeWindows.of("10s"))
    return windows.aggregate(Highest).flat_map(
        lambda bids: [(bid.auction, bid.price, bid.bidder, bid.date_time) for bid in bids]
    )


def q8(streams: Streams) -> Rows:
    """Who registered and put something up within the same 10 s."""
    both = streams.persons.co_group(streams.auctions)
    windows = both.where(lambda person: person.id).equal_to(lambda auction: auction.seller)
    return windows.window(TumblingEventTimeWindows.of("10s")).apply(
        lambda persons, auctions, out: [(each.id, each.name) for each in persons] if auctions else []
    )


def q9(streams: Streams) -> Rows:
    """The winning bid of each auction."""
    return _won(streams).map(lambda won: (won[0].id, won[0].seller, won[1].price, won[1].bidder, won[1].date_time))


def q11(streams: Streams) -> Rows:
    """How many bids a bidder makes in one go: until 10 s without one."""
    sessions = streams.bids.key_by(lambda bid: bid.bidder).window(EventTimeSessionWindows.with_gap("10s"))
    return sessions.count().map(lambda result: (result.key, result.value, result.window.start, result.window.end))


def q12(streams: Streams) -> Rows:
    """How many bids a bidder makes in 10 s of the clock."""
    windows = streams.bids.key_by(lambda bid: bid.bidder).window(TumblingProcessingTimeWindows.of("10s"))
    return windows.count().map(lambda result: (result.key, result.value))


def q13(streams: Streams) -> Rows:
    """Bids with a value from a table beside them."""
    return streams.bids.flat_map(Enrich)


def q14(streams: Streams) -> Rows:
    """Prices in euros of dear bids, the time of day, and how often a letter stands in a text."""

    def described(bid: Bid) -> tuple[Any, ...]:
        hour = bid.date_time // 3_600_000 % 24
        day = "day" if 8 <= hour <= 18 else "night" if hour <= 6 or hour >= 20 else "other"
        return (bid.auction, bid.bidder, EURO * bid.price, day, bid.date_time, bid.extra, bid.extra.count("c"))

    return streams.bids.filter(lambda bid: 1_000_000 < EURO * bid.price < 50_000_000).map(described)


def q16(streams: Streams) -> Rows:
    """Bids, bidders and auctions of each channel and day, by rank of price."""
    return streams.bids.key_by(lambda bid: (bid.channel, bid.date_time // DAY)).process(ByChannel)


def q17(streams: Streams) -> Rows:
    """Statistics of the prices of each auction and day."""
    return streams.bids.key_by(lambda bid: (bid.auction, bid.date_time // DAY)).process(ByAuction)


def q18(streams: Streams) -> Rows:
    """The last bid of each bidder on each auction."""
    return streams.bids.key_by(lambda bid: (bid.bidder, bid.auction)).reduce(latest).map(tuple)


def q19(streams: Streams) -> Rows:
    """The ten best bids of each auction."""
    changes = streams.bids.key_by(lambda bid: bid.auction).process(TopTen)
    return changes.map(lambda change: (change[0], *change[1]))


def q20(streams: Streams) -> Rows:
    """Bids on things of a category, with the thing."""
    items = streams.auctions.filter(lambda auction: auction.category == CATEGORY).key_by(lambda auction: auction.id)
    bids = streams.bids.key_by(lambda bid: bid.auction)
    return bids.connect(items).join(
        lambda bid, item: (bid.auction, bid.bidder, bid.price, bid.date_time, item.item_name, item.seller)
    )


def q22(streams: Streams) -> Rows:
    """The folders of the bids' addresses."""
    return streams.bids.map(lambda bid: (bid.auction, bid.bidder, bid.price, bid.channel, *bid.url.split("/")[3:6]))


def _won(streams: Streams) -> Rows:
    auctions = streams.auctions.key_by(lambda auction: auction.id)
    return auctions.connect(streams.bids.key_by(lambda bid: bid.auction)).process(WinningBid)


class Enrich(FlatMapFunction[Bid, tuple[Any, ...]]):
    """Looks a table up that is read when the operator opens."""

    def open(self, context: FunctionContext) -> None:
        self._table = dict(SIDE_INPUT)

    def process(self, value: Bid) -> list[tuple[Any, ...]]:
        found = self._table.get(value.auction % 10_000)
        return [] if found is None else [(value.auction, value.bidder, value.price, value.date_time, found)]


QUERIES: dict[str, Callable[[Streams], Rows]] = {
    name: query for name, query in globals().copy().items() if name[0] == "q" and name[1:].isdigit()
}


def run(name: str, events: Sequence[Event], config: dict[str, Any] | None = None) -> list[Any]:
    """All that a query puts out for these events."""
    out: list[Any] = []
    env = LocalEnvironment(f"nexmark-{name}", config)
    if name == "q12":
        return _by_the_clock(env, events, out)
    streams = Streams(env.from_collection(events, name="events"), timed=name not in UNTIMED)
    QUERIES[name](streams).sink(out.append)
    env.submit()
    return out


def _by_the_clock(env: LocalEnvironment, events: Sequence[Event], out: list[Any]) -> list[Any]:
    """q12, under a clock that is moved until every bid that was read stands in a window that has ended."""
    half = len(events) // 2
    source: MarkedSource[Event] = MarkedSource([*events[:half], PAUSE, *events[half:], PAUSE])
    q12(Streams(env.from_source(source, name="events"))).sink(out.append)
    deadline = time.monotonic() + 60
    with virtual_time() as clock:
        handle = env.submit(block=False)
        for read in (half, len(events)):
            source.wait_until_paused()
            bids = sum(type(event) is Bid for event in events[:read])
            while sum(number for _, number in out) < bids and time.monotonic() < deadline:
                clock.advance("20s")
                time.sleep(0.001)
            source.proceed()
        handle.wait()
    return out
