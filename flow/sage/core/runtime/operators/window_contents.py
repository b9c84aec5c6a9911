"""What a window keeps of its records: all of them, or what they were folded into.

Contents are what stands in state for a key and a window; `MISSING` where nothing does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.graph.spec import BoundFunction, FunctionSpec

__all__ = [
    "EMPTY",
    "MISSING",
    "Aggregated",
    "Contents",
    "ContentsSpec",
    "Elements",
    "FoldKind",
    "Reduced",
    "pack",
    "unpack",
]

MISSING: Any = object()
EMPTY = ("\0none",)  # None as contents: in a state table it means that there is nothing


def pack(contents: Any) -> Any:
    """Contents as they stand in a state table."""
    return EMPTY if contents is None else contents


def unpack(stored: Any) -> Any:
    """Contents from a state table; MISSING when there were none."""
    if stored is None:
        return MISSING
    return None if type(stored) is tuple and stored == EMPTY else stored


class Contents(ABC):
    """How records become contents. `single`: a window function sees one value, the result, in place of the records."""

    single = True

    @abstractmethod
    def first(self, record: Any) -> Any:
        """The contents of one record."""

    @abstractmethod
    def add(self, record: Any, contents: Any) -> Any:
        """With one record more; may change and return `contents`."""

    @abstractmethod
    def merge(self, contents: Any, other: Any) -> Any:
        """Both together; may change and return `contents`."""

    @abstractmethod
    def result(self, contents: Any) -> Any:
        """What they amount to."""

    def of(self, records: list[Any]) -> Any:
        """The contents of some records."""
        contents = self.first(records[0])
        for record in records[1:]:
            contents = self.add(record, contents)
        return contents


class Elements(Contents):
    """All records, in the order in which they came."""

    single = False

    def first(self, record: Any) -> list[Any]:
        """See Contents."""
        return [record]

    def add(self, record: Any, contents: list[Any]) -> list[Any]:
        """See Contents."""
        contents.append(record)
        return contents

    def merge(self, contents: list[Any], other: list[Any]) -> list[Any]:
        """See Contents."""
        contents.extend(other)
        return contents

    def result(self, contents: list[Any]) -> list[Any]:
        """A list of its own: the window may live on."""
        return contents[:]

    def of(self, records: list[Any]) -> list[Any]:
        """See Contents."""
        return records


class Reduced(Contents):
    """Folded by a function of two records."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.merge = function  # type: ignore[method-assign, assignment]

    def first(self, record: Any) -> Any:
        """See Contents."""
        return record

    def add(self, record: Any, contents: Any) -> Any:
        """See Contents."""
        return self.merge(contents, record)

    def merge(self, contents: Any, other: Any) -> Any:
        """See Contents."""
        raise NotImplementedError

    def result(self, contents: Any) -> Any:
        """See Contents."""
        return contents


class Aggregated(Contents):
    """Folded by an AggregateFunction (or what has its methods)."""

    def __init__(self, function: Any) -> None:
        self._create = function.create_accumulator
        self.add = function.add  # type: ignore[method-assign]
        self.merge = function.merge  # type: ignore[method-assign]
        self.result = function.get_result  # type: ignore[method-assign]

    def first(self, record: Any) -> Any:
        """See Contents."""
        return self.add(record, self._create())

    def add(self, record: Any, contents: Any) -> Any:
        """See Contents."""
        raise NotImplementedError

    def merge(self, contents: Any, other: Any) -> Any:
        """See Contents."""
        raise NotImplementedError

    def result(self, contents: Any) -> Any:
        """See Contents."""
        raise NotImplementedError


FoldKind = str  # "elements", "reduce" or "aggregate"


@dataclass(slots=True, frozen=True)
class ContentsSpec:
    """Which contents, and the user's function for them."""

    kind: FoldKind = "elements"
    function: FunctionSpec | None = None

    def bound(self, bind: Callable[[FunctionSpec], BoundFunction]) -> Contents:
        """The contents of one subtask."""
        if self.function is None:
            return Elements()
        bound = bind(self.function)
        return Reduced(bound.call) if self.kind == "reduce" else Aggregated(bound.target)
