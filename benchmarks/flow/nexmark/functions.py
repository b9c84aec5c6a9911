"""Functions and accumulators of the queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.flow.nexmark.events import Auction, Bid
from sage.core.api.function import (
    AggregateFunction,
    Collector,
    FunctionContext,
    KeyedCoProcessFunction,
    KeyedProcessContext,
    KeyedProcessFunction,
    OnTimerContext,
)
from sage.core.api.state import ListState, ListStateDescriptor, ValueState, ValueStateDescriptor

DAY = 86_400_000
RANKS = (10_000, 1_000_000)  # prices at which the next rank begins
Won = tuple[Auction, Bid]


def wins(bid: Bid) -> tuple[int, int, int, str]:
    """By what a bid beats another: price, then the earlier time; bidder and text only so that ties have an order."""
    return (bid.price, -bid.date_time, bid.bidder, bid.extra)


class WinningBid(KeyedCoProcessFunction[int, Auction, Bid, Won]):
    """The best bid of each auction among those within its time, when event time has reached its end.

    Bids may come before their auction: they wait for it.
    """

    def open(self, context: FunctionContext) -> None:
        self._auction: ValueState[Auction | None] = context.get_state(ValueStateDescriptor("auction"))
        self._best: ValueState[Bid | None] = context.get_state(ValueStateDescriptor("best"))
        self._early: ListState[Bid] = context.get_list_state(ListStateDescriptor("early"))

    def process_element1(self, value: Auction, context: KeyedProcessContext, out: Collector[Won]) -> None:
        self._auction.update(value)
        for bid in self._early.get():
            self._offer(value, bid)
        self._early.clear()
        context.timer_service().register_event_time_timer(value.expires)

    def process_element2(self, value: Bid, context: KeyedProcessContext, out: Collector[Won]) -> None:
        auction = self._auction.value()
        if auction is None:
            self._early.add(value)
        else:
            self._offer(auction, value)

    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Won]) -> None:
        auction, best = self._auction.value(), self._best.value()
        if auction is not None and best is not None:
            out.collect((auction, best))
        self._best.clear()

    def _offer(self, auction: Auction, bid: Bid) -> None:
        if auction.date_time <= bid.date_time <= auction.expires:
            best = self._best.value()
            if best is None or wins(bid) > wins(best):
                self._best.update(bid)


class MeanPrice(AggregateFunction[Won, tuple[int, int, int], tuple[int, float]]):
    """(category, mean of the winning prices so far)."""

    def create_accumulator(self) -> tuple[int, int, int]:
        return (0, 0, 0)

    def add(self, value: Won, accumulator: tuple[int, int, int]) -> tuple[int, int, int]:
        return (value[0].category, accumulator[1] + value[1].price, accumulator[2] + 1)

    def get_result(self, accumulator: tuple[int, int, int]) -> tuple[int, float]:
        return (accumulator[0], accumulator[1] / accumulator[2])


class Highest(AggregateFunction[Bid, list[Bid], list[Bid]]):
    """All bids of the highest price."""

    def create_accumulator(self) -> list[Bid]:
        return []

    def add(self, value: Bid, accumulator: list[Bid]) -> list[Bid]:
        if not accumulator or value.price > accumulator[0].price:
            return [value]
        return [*accumulator, value] if value.price == accumulator[0].price else accumulator

    def get_result(self, accumulator: list[Bid]) -> list[Bid]:
        return accumulator


class Hottest(AggregateFunction[tuple[int, int], list[tuple[int, int]], list[tuple[int, int]]]):
    """All (auction, number of bids) with the highest number."""

    def create_accumulator(self) -> list[tuple[int, int]]:
        return []

    def add(self, value: tuple[int, int], accumulator: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if not accumulator or value[1] > accumulator[0][1]:
            return [value]
        return [*accumulator, value] if value[1] == accumulator[0][1] else accumulator

    def get_result(self, accumulator: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return accumulator


class Statistics(KeyedProcessFunction[Any, Bid, tuple[Any, ...]]):
    """Of a key's bids so far, after every bid: numbers by rank, and whatever `describe` adds from the prices."""

    def open(self, context: FunctionContext) -> None:
        self._seen: ValueState[Any] = context.get_state(ValueStateDescriptor("seen"))

    def process_element(self, value: Bid, context: KeyedProcessContext, out: Collector[tuple[Any, ...]]) -> None:
        seen = self._seen.value() or self.empty()
        seen = self.added(seen, value)
        self._seen.update(seen)
        out.collect((*context.get_current_key(), *self.result(seen)))

    def empty(self) -> Any:
        """What is kept before the first bid."""
        raise NotImplementedError

    def added(self, seen: Any, bid: Bid) -> Any:
        """What is kept after another bid."""
        raise NotImplementedError

    def result(self, seen: Any) -> tuple[Any, ...]:
        """What goes out."""
        raise NotImplementedError


def rank(price: int) -> int:
    """0, 1 or 2."""
    return sum(price >= bound for bound in RANKS)


class ByChannel(Statistics):
    """Numbers of bids, of bidders and of auctions, each in all and by rank (q16)."""

    def empty(self) -> Any:
        return [[0, 0, 0], [set(), set(), set()], [set(), set(), set()]]

    def added(self, seen: Any, bid: Bid) -> Any:
        place = rank(bid.price)
        seen[0][place] += 1
        seen[1][place].add(bid.bidder)
        seen[2][place].add(bid.auction)
        return seen

    def result(self, seen: Any) -> tuple[Any, ...]:
        numbers, bidders, auctions = seen
        return (
            *(sum(numbers), *numbers),
            *(len(set().union(*bidders)), *map(len, bidders)),
            *(len(set().union(*auctions)), *map(len, auctions)),
        )


class ByAuction(Statistics):
    """Numbers of bids in all and by rank, least, greatest, mean and sum of the prices (q17)."""

    def empty(self) -> Any:
        return [0, 0, 0, None, None, 0]

    def added(self, seen: Any, bid: Bid) -> Any:
        seen = list(seen)
        seen[rank(bid.price)] += 1
        seen[3] = bid.price if seen[3] is None else min(seen[3], bid.price)
        seen[4] = bid.price if seen[4] is None else max(seen[4], bid.price)
        seen[5] += bid.price
        return seen

    def result(self, seen: Any) -> tuple[Any, ...]:
        number = sum(seen[:3])
        return (number, *seen[:3], seen[3], seen[4], seen[5] / number, seen[5])


class TopTen(KeyedProcessFunction[int, Bid, tuple[str, Bid]]):
    """The ten best bids of each auction, as changes: ("+", bid) that enters, ("-", bid) that it pushes out (q19)."""

    def open(self, context: FunctionContext) -> None:
        self._best: ValueState[list[Bid] | None] = context.get_state(ValueStateDescriptor("best"))

    def process_element(self, value: Bid, context: KeyedProcessContext, out: Collector[tuple[str, Bid]]) -> None:
        best = sorted([*(self._best.value() or ()), value], key=wins, reverse=True)
        kept, gone = best[:10], best[10:]
        self._best.update(kept)
        if gone != [value]:
            for bid in gone:
                out.collect(("-", bid))
            out.collect(("+", value))


def latest(one: Bid, two: Bid) -> Bid:
    """The later of two bids; the dearer of two of the same time (q18)."""
    return max(one, two, key=lambda bid: (bid.date_time, bid.price, bid.extra))


def first(values: Iterable[Any]) -> Any:
    """The one value that an aggregate leaves."""
    return next(iter(values))
