"""The refresh loop."""

import asyncio
import threading
from typing import Any

from sage.common.home import SageHome
from sage.tui.data import Collector, Snapshot, Tail
from sage.tui.feed import Feed


async def settle(holds: Any) -> None:
    """Give the loop time until something holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the other side is a thread
            await asyncio.sleep(0.01)


async def test_lines_of_a_log_that_is_no_longer_chosen_are_dropped(home: SageHome, nothing: Snapshot) -> None:
    """The choice may change while a slow look is under way; its lines belong to the old log."""
    looking, go_on = threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self) -> Snapshot:
            looking.set()
            go_on.wait(10)
            return nothing

    (home.logs / "old.log").write_text("old line\n")
    (home.logs / "new.log").write_text("new line\n")
    seen: list[Tail] = []
    feed = Feed(Slow(home), lambda snapshot, tail: seen.append(tail), interval=60)
    feed.follow(home.logs / "old.log")
    running = asyncio.create_task(feed.run())
    await settle(looking.is_set)
    feed.follow(home.logs / "new.log")
    go_on.set()
    await settle(lambda: len(seen) >= 2)
    running.cancel()
    feed.close()
    assert [line for tail in seen for line in tail.lines] == ["new line"]


async def test_pausing_stops_looking_and_refreshing_looks_once(home: SageHome, nothing: Snapshot) -> None:
    looks: list[Snapshot] = []

    class Counting(Collector):
        def collect(self) -> Snapshot:
            return nothing

    feed = Feed(Counting(home), lambda snapshot, tail: looks.append(snapshot), interval=0.01)
    running = asyncio.create_task(feed.run())
    await settle(lambda: len(looks) > 2)
    feed.pause()
    await asyncio.sleep(0.1)
    before = len(looks)
    await asyncio.sleep(0.1)
    assert len(looks) == before
    feed.refresh()
    await settle(lambda: len(looks) == before + 1)
    await asyncio.sleep(0.1)
    assert len(looks) == before + 1
    running.cancel()
    feed.close()


def test_intervals_are_walked_from_end_to_end(home: SageHome) -> None:
    feed = Feed(Collector(home), lambda snapshot, tail: None)
    assert [feed.faster(1) for _ in range(2)] == [0.5, 0.5]
    assert [feed.faster(-1) for _ in range(5)] == [1, 2, 5, 10, 10]
    feed.close()
