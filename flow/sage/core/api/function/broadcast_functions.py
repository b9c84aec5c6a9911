"""Broadcast process functions: a stream and a broadcast one, which every subtask sees whole, and their state.

After Flink's Broadcast State Pattern.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.contexts import KeyedProcessContext, OnTimerContext, ProcessContext
from sage.core.api.function.functions import Collector

if TYPE_CHECKING:
    from sage.core.api.state import MapStateDescriptor
    from sage.core.runtime.operators.base import OperatorContext
    from sage.core.runtime.timers import TimerService as OperatorTimers

__all__ = [
    "BroadcastContext",
    "BroadcastProcessFunction",
    "BroadcastState",
    "KeyedBroadcastContext",
    "KeyedBroadcastProcessFunction",
    "KeyedReadOnlyContext",
    "ReadOnlyBroadcastState",
    "ReadOnlyContext",
]

K = TypeVar("K")
V = TypeVar("V")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")


class ReadOnlyBroadcastState(Generic[K, V]):
    """A map that every subtask has whole, as the side that is not broadcast sees it."""

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[K, V]) -> None:
        self._entries = entries

    def get(self, key: K) -> V | None:
        """The value; None when there is none."""
        return self._entries.get(key)

    def contains(self, key: K) -> bool:
        """Whether there is a value."""
        return key in self._entries

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries, in the order in which they were first put."""
        return iter(list(self._entries.items()))

    def keys(self) -> Iterator[K]:
        return iter(list(self._entries))

    def values(self) -> Iterator[V]:
        return iter(list(self._entries.values()))

    def is_empty(self) -> bool:
        return not self._entries


class BroadcastState(ReadOnlyBroadcastState[K, V]):
    """A map that every subtask has whole, as the broadcast side sees it: changed the same way in all of them."""

    __slots__ = ()

    def put(self, key: K, value: V) -> None:
        """Set a value."""
        self._entries[key] = value

    def put_all(self, entries: dict[K, V]) -> None:
        """Set several."""
        self._entries.update(entries)

    def remove(self, key: K) -> None:
        """Remove a value; one that does not exist is no error."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Remove all."""
        self._entries.clear()


class ReadOnlyContext(ProcessContext):
    """What the side that is not broadcast sees."""

    __slots__ = ("_maps",)

    def __init__(
        self, operator: OperatorContext, maps: dict[str, dict[Any, Any]], timers: OperatorTimers | None = None
    ) -> None:
        super().__init__(operator, timers)
        self._maps = maps

    def get_broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> ReadOnlyBroadcastState[K, V]:
        """The broadcast state of that descriptor, for reading."""
        return ReadOnlyBroadcastState(_map(self._maps, descriptor))


class KeyedReadOnlyContext(ReadOnlyContext, KeyedProcessContext):
    """As ReadOnlyContext, on a keyed stream: with the current key and timers."""

    __slots__ = ()


class OnTimerReadOnlyContext(ReadOnlyContext, OnTimerContext):
    """What `on_timer` of a KeyedBroadcastProcessFunction sees."""

    __slots__ = ()


class BroadcastContext(ProcessContext):
    """What the broadcast side sees."""

    __slots__ = ("_maps",)

    def __init__(self, operator: OperatorContext, maps: dict[str, dict[Any, Any]]) -> None:
        super().__init__(operator)
        self._maps = maps

    @property
    def key(self) -> Any:
        """A broadcast record has no key."""
        return None

    def get_broadcast_state(self, descriptor: MapStateDescriptor[K, V]) -> BroadcastState[K, V]:
        """The broadcast state of that descriptor."""
        return BroadcastState(_map(self._maps, descriptor))


class KeyedBroadcastContext(BroadcastContext):
    """As BroadcastContext, beside a keyed stream."""

    __slots__ = ()

    def apply_to_keyed_state(self, descriptor: Any, function: Callable[[Any, Any], None]) -> None:
        """Call `function(key, state)` for every key of this subtask that has state of the descriptor.

        `state` is the handle that `context.get_state` and its kin give; it may be changed.
        """
        from sage.core.state.handles import keys_of

        keyed = self.function.keyed
        assert keyed is not None, "the other stream has keys"
        state = self.function._keyed_state(descriptor)
        before = keyed.key
        try:
            for key in list(keys_of(keyed, descriptor)):
                keyed.key = key
                function(key, state)
        finally:
            keyed.key = before


def _map(maps: dict[str, dict[Any, Any]], descriptor: MapStateDescriptor[K, V]) -> dict[K, V]:
    entries = maps.get(descriptor.name)
    if entries is None:
        raise PipelineError(
            f"There is no broadcast state {descriptor.name!r}",
            cause=f"the stream was broadcast with {', '.join(maps) or 'no descriptor'}",
            hint="give the descriptor to broadcast(...)",
        )
    return entries


class BroadcastProcessFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """Joins a stream with a broadcast one (rules, settings, a small table).

    Broadcast state must become the same in every subtask: only `process_broadcast_element` may change it, in a way that
    depends on nothing but the broadcast records.
    """

    @abstractmethod
    def process_element(self, value: T1, context: ReadOnlyContext, out: Collector[R]) -> None:
        """A record of the stream that is not broadcast: may read broadcast state."""

    @abstractmethod
    def process_broadcast_element(self, value: T2, context: BroadcastContext, out: Collector[R]) -> None:
        """A broadcast record: may change broadcast state."""


class KeyedBroadcastProcessFunction(BaseFunction, ABC, Generic[K, T1, T2, R]):
    """As BroadcastProcessFunction, where the other stream is keyed: with keyed state and timers."""

    @abstractmethod
    def process_element(self, value: T1, context: KeyedReadOnlyContext, out: Collector[R]) -> None:
        """A record of the keyed stream: keyed state and timers are those of its key."""

    @abstractmethod
    def process_broadcast_element(self, value: T2, context: KeyedBroadcastContext, out: Collector[R]) -> None:
        """A broadcast record: has no key, but `context.apply_to_keyed_state` visits the state of all keys."""

    def on_timer(self, timestamp: int, context: OnTimerReadOnlyContext, out: Collector[R]) -> None:
        """A timer of `context.get_current_key()` is due; broadcast state can be read. By default nothing is done."""
