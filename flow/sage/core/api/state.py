"""Descriptors of keyed state: what a function declares in `open` and gets a state for.

    def open(self, context):
        self.total = context.get_state(ValueStateDescriptor("total", default=0))

    def process_element(self, value, context, out):
        self.total.update(self.total.value() + value)

A state belongs to the key of the record at hand: there is one value for each key. The names are PyFlink's.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.units import parse_duration

__all__ = [
    "AggregatingState",
    "AggregatingStateDescriptor",
    "Aggregator",
    "ListState",
    "ListStateDescriptor",
    "MapState",
    "MapStateDescriptor",
    "ReducingState",
    "ReducingStateDescriptor",
    "StateDescriptor",
    "StateTtlConfig",
    "StateVisibility",
    "TtlUpdate",
    "ValueState",
    "ValueStateDescriptor",
]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
IN_contra = TypeVar("IN_contra", contravariant=True)
IN = TypeVar("IN")
ACC = TypeVar("ACC")
OUT = TypeVar("OUT")
OUT_co = TypeVar("OUT_co", covariant=True)


class TtlUpdate(enum.StrEnum):
    """What renews the life of a value (Flink's StateTtlConfig.UpdateType)."""

    ON_CREATE_AND_WRITE = "on-create-and-write"
    ON_READ_AND_WRITE = "on-read-and-write"


class StateVisibility(enum.StrEnum):
    """Whether a value that has expired, and is still there, may be seen."""

    NEVER_RETURN_EXPIRED = "never-return-expired"
    RETURN_EXPIRED_IF_NOT_CLEANED_UP = "return-expired-if-not-cleaned-up"


@dataclass(frozen=True)
class StateTtlConfig:
    """How long state lives without being written (or read), in processing time.

    `ttl` as "10m", milliseconds, or timedelta. Elements of lists and entries of maps each live on their own. Expired
    state is removed when it is met and, bit by bit, in the background; a checkpoint may still hold some.

    >>> StateTtlConfig("10m").milliseconds
    600000
    """

    ttl: str | int | timedelta
    update: TtlUpdate = TtlUpdate.ON_CREATE_AND_WRITE
    visibility: StateVisibility = StateVisibility.NEVER_RETURN_EXPIRED

    def __post_init__(self) -> None:
        try:
            usable = self.milliseconds > 0
        except ValueError as error:
            raise PipelineError(f"{self.ttl!r} is no time to live", cause=str(error)) from error
        if not usable:
            raise PipelineError(f"{self.ttl!r} is no time to live", cause="it must be at least a millisecond")

    @property
    def milliseconds(self) -> int:
        """The time to live in milliseconds."""
        if isinstance(self.ttl, timedelta):
            return self.ttl // timedelta(milliseconds=1)
        return round(parse_duration(self.ttl) * 1000)


class Aggregator(Protocol[IN_contra, ACC, OUT_co]):
    """What an aggregating state needs: the methods of `AggregateFunction`."""

    def create_accumulator(self) -> ACC: ...
    def add(self, value: IN_contra, accumulator: ACC, /) -> ACC: ...
    def get_result(self, accumulator: ACC, /) -> OUT_co: ...
    def merge(self, a: ACC, b: ACC, /) -> ACC: ...


@dataclass(frozen=True, kw_only=True)
class StateDescriptor:
    """What all descriptors have. `type` (a class, optional) is part of the fingerprint that a restore compares."""

    kind: ClassVar[str]
    ttl: StateTtlConfig | None = None
    type: Any = None

    def fingerprint(self) -> str:
        """What must not change between a snapshot and a restore, as text: the kind, the type, with or without TTL."""
        parts = [self.kind]
        if self.type is not None:
            parts.append(_type_name(self.type))
        if self.ttl is not None:
            parts.append("ttl")
        return " ".join(parts)


@dataclass(frozen=True)
class ValueStateDescriptor(StateDescriptor, Generic[T]):
    """One value for each key; `default` is what `value()` gives before the first `update`."""

    kind: ClassVar[str] = "value"
    name: str
    default: T | None = None


@dataclass(frozen=True)
class ListStateDescriptor(StateDescriptor, Generic[T]):
    """A list for each key."""

    kind: ClassVar[str] = "list"
    name: str


@dataclass(frozen=True)
class MapStateDescriptor(StateDescriptor, Generic[K, V]):
    """A map for each key; on disk every entry stands for itself, so that maps may be large."""

    kind: ClassVar[str] = "map"
    name: str


@dataclass(frozen=True)
class ReducingStateDescriptor(StateDescriptor, Generic[T]):
    """All values added so far for a key, folded by `reduce_function(a, b)`."""

    kind: ClassVar[str] = "reducing"
    name: str
    reduce_function: Callable[[T, T], T]


@dataclass(frozen=True)
class AggregatingStateDescriptor(StateDescriptor, Generic[IN, ACC, OUT]):
    """All values added so far for a key, as the accumulator of an AggregateFunction (a class or an instance)."""

    kind: ClassVar[str] = "aggregating"
    name: str
    aggregate_function: Aggregator[IN, ACC, OUT] | type[Aggregator[IN, ACC, OUT]]


class ValueState(Protocol[T]):
    """One value for each key."""

    def value(self) -> T:
        """The value; the descriptor's default (None when it has none) before the first `update`."""

    def update(self, value: T) -> None:
        """Set the value; None clears it. A list or object changed in place must be given here again."""

    def clear(self) -> None:
        """Remove the value."""


class ListState(Protocol[T]):
    """A list for each key, or for each subtask."""

    def get(self) -> list[T]:
        """The elements, in a list of the caller's own."""

    def __iter__(self) -> Iterator[T]: ...

    def add(self, value: T) -> None:
        """Append an element."""

    def add_all(self, values: Iterable[T]) -> None:
        """Append several."""

    def update(self, values: Iterable[T]) -> None:
        """Replace all elements."""

    def clear(self) -> None:
        """Remove all."""


class MapState(Protocol[K, V]):
    """A map for each key."""

    def get(self, key: K) -> V | None:
        """The value of an entry; None when there is none."""

    def put(self, key: K, value: V) -> None:
        """Set an entry; the value None removes it."""

    def put_all(self, entries: dict[K, V]) -> None:
        """Set several."""

    def remove(self, key: K) -> None:
        """Remove an entry; one that does not exist is no error."""

    def contains(self, key: K) -> bool:
        """Whether there is an entry."""

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries, as they are now: the map may be changed meanwhile. The order is not defined."""

    def keys(self) -> Iterator[K]: ...
    def values(self) -> Iterator[V]: ...
    def is_empty(self) -> bool: ...
    def clear(self) -> None: ...
    def __contains__(self, key: K) -> bool: ...
    def __iter__(self) -> Iterator[K]: ...


class ReducingState(Protocol[T]):
    """For each key, what was added, folded by a function."""

    def get(self) -> T | None:
        """The fold of all that was added; None before the first."""

    def add(self, value: T) -> None:
        """Fold a value in."""

    def clear(self) -> None:
        """Forget all."""


class AggregatingState(Protocol[IN_contra, OUT_co]):
    """For each key, what was added, folded by an AggregateFunction."""

    def get(self) -> OUT_co | None:
        """The function's result; None before the first `add`."""

    def add(self, value: IN_contra) -> None:
        """Fold a value in."""

    def clear(self) -> None:
        """Forget all."""


def _type_name(kind: Any) -> str:
    """A type as text; a dataclass with its fields, because a change of them breaks what was pickled."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        fields = ", ".join(f"{field.name}: {_annotation(field.type)}" for field in dataclasses.fields(kind))
        return f"{kind.__qualname__}({fields})"
    return _annotation(kind)


def _annotation(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
