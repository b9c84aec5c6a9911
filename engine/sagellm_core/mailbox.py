"""Items for one reader on the same event loop, who takes all there are at once."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Cheaper than a queue where several items come between two looks: the reader is woken once for all of them.

    Made on the event loop that it is used on.
    """

    __slots__ = ("_items", "_loop", "_reader")

    def __init__(self) -> None:
        self._items: list[_T] = []
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: _T) -> None:
        """Add an item; on the reader's event loop."""
        self._items.append(item)
        reader = self._reader
        if reader is not None:
            self._reader = None
            if not reader.done():
                reader.set_result(None)

    async def take(self) -> list[_T]:
        """All items, at least one, in their order."""
        while not self._items:
            self._reader = self._loop.create_future()
            await self._reader
        items, self._items = self._items, []
        return items
