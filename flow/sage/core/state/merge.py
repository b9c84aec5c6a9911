"""How the namespaces of a key become one: sessions that have met."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.core.state.base import StateTable

__all__ = ["merge_namespaces"]


def merge_namespaces(
    table: StateTable, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]
) -> None:
    """`StateTable.merge` by way of the table's other methods: all values into that of `target`, in the order given."""
    merged = table.get(target)
    for source in sources:
        if source == target:
            continue
        value = table.get(source)
        if value is not None:
            merged = value if merged is None else combine(merged, value)
            table.clear(source)
    table.put(merged, target)
