"""Calls posted from a thread reach the loop, all of them, in order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sagellm_core.doorbell import Doorbell


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that watches no pipes, as Windows' proactor."""

    def add_reader(self, *_: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, NoReaders])
def test_calls_arrive_in_order(kind: type[asyncio.SelectorEventLoop]) -> None:
    async def listen() -> list[int]:
        bell, heard, last = Doorbell(asyncio.get_running_loop()), list[int](), asyncio.Event()

        def ring() -> None:
            for number in range(2000):
                bell.post(lambda number=number: heard.append(number))  # type: ignore[misc]
            bell.post(last.set)

        thread = threading.Thread(target=ring)
        thread.start()
        await asyncio.wait_for(last.wait(), 30)
        thread.join()
        bell.close()
        return heard

    loop = kind()
    try:
        assert loop.run_until_complete(listen()) == list(range(2000))
    finally:
        loop.close()


async def test_what_was_posted_before_the_end_still_runs() -> None:
    bell, heard = Doorbell(asyncio.get_running_loop()), list[str]()
    bell.post(lambda: heard.append("last"))
    bell.close()
    bell.close()
    await asyncio.sleep(0)
    assert heard == ["last"]


def test_a_closed_loop_is_left_alone() -> None:
    heard: list[str] = []
    loop = asyncio.new_event_loop()
    bell = Doorbell(loop)
    bell.close()
    loop.close()
    bell.post(lambda: heard.append("late"))
    assert heard == []
