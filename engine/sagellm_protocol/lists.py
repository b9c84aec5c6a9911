"""Lists from outside: checked up to the first fault."""

from __future__ import annotations

from pydantic import FailFast


class FirstFault(FailFast):
    """Marks a list that is refused at its first wrong item: an error for each of a million costs gigabytes.

    pydantic's `FailFast`, made hashable, as members of a union have to be on Python 3.11.
    """

    def __hash__(self) -> int:
        return hash(type(self))
