"""State that expires: a table whose rows carry the time at which they were last written (or read).

After Flink's TtlStateFactory: the time is stored, not the end of life, so that a job restored with another `ttl` goes
by the new one. Time is processing time, from the backend's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from sage.core.state.base import StateTable

__all__ = ["Ttl", "TtlTable"]


@dataclass(frozen=True, slots=True)
class Ttl:
    """How long rows live, in milliseconds of `now`, and what renews and hides them."""

    milliseconds: int
    now: Callable[[], int]
    renew_on_read: bool = False
    show_expired: bool = False

    def expired(self, row: Any) -> bool:
        """Whether a stored row has reached its end."""
        written: int = row[0]
        return written + self.milliseconds <= self.now()


class TtlTable:
    """A StateTable over one that holds (time, value) rows."""

    __slots__ = ("_rows", "_ttl")

    def __init__(self, rows: StateTable, ttl: Ttl) -> None:
        self._rows = rows
        self._ttl = ttl

    def get(self, namespace: Hashable = None) -> Any:
        """See StateTable; an expired value is removed, and seen once more at most."""
        row = self._rows.get(namespace)
        if row is None:
            return None
        if self._ttl.expired(row):
            self._rows.clear(namespace)
            return row[1] if self._ttl.show_expired else None
        if self._ttl.renew_on_read:
            self.put(row[1], namespace)
        return row[1]

    def put(self, value: Any, namespace: Hashable = None) -> None:
        """See StateTable."""
        self._rows.put(None if value is None else (self._ttl.now(), value), namespace)

    def clear(self, namespace: Hashable = None) -> None:
        """See StateTable."""
        self._rows.clear(namespace)

    def merge(self, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]) -> None:
        """See StateTable; the merged value is as old as the youngest part."""

        def combined(left: Any, right: Any) -> Any:
            if self._ttl.expired(left):
                return right
            if self._ttl.expired(right):
                return left
            return max(left[0], right[0]), combine(left[1], right[1])

        self._rows.merge(target, sources, combined)

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        """See StateTable; keys whose value has expired, and was not removed yet, are among them."""
        return self._rows.keys(namespace)
