"""The three streams that the queries read."""

from __future__ import annotations

from benchmarks.flow.nexmark.events import OUT_OF_ORDER, Auction, Bid, Event, Person
from sage.core.api import DataStream
from sage.core.api.time import WatermarkStrategy

TIMES = WatermarkStrategy.for_bounded_out_of_orderness(OUT_OF_ORDER).with_timestamp_assigner(
    lambda event: event.date_time
)


class Streams:
    """Persons, auctions and bids out of one source of events; `timed`: with event time."""

    def __init__(self, events: DataStream[Event], *, timed: bool = True) -> None:
        self._all = events.assign_timestamps_and_watermarks(TIMES) if timed else events

    @property
    def persons(self) -> DataStream[Person]:
        """Those who registered."""
        return self._all.filter(lambda event: type(event) is Person, name="persons")  # type: ignore[return-value]

    @property
    def auctions(self) -> DataStream[Auction]:
        """What was put up."""
        return self._all.filter(lambda event: type(event) is Auction, name="auctions")  # type: ignore[return-value]

    @property
    def bids(self) -> DataStream[Bid]:
        """What was offered."""
        return self._all.filter(lambda event: type(event) is Bid, name="bids")  # type: ignore[return-value]
