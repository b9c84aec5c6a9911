"""What callers hand to a vector store, checked and in one shape. Everything here raises ServiceError."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sage.common.errors import ServiceError
from sage.middleware.services.vdb.flat_index import Vectors

__all__ = ["Filter", "VectorId", "checked_ids", "checked_metadata", "matrix", "predicate", "whole_number"]

VectorId: TypeAlias = str | int
Filter: TypeAlias = Mapping[str, Any] | Callable[[dict[str, Any]], object]

_LARGEST = 1e15  # of a value; squares and sums of these still fit float32


def matrix(vectors: npt.ArrayLike) -> Vectors:
    """float32, shape (n, dim), finite."""
    try:
        with np.errstate(over="ignore"):
            rows = np.atleast_2d(np.asarray(vectors, np.float32))
    except (TypeError, ValueError) as error:
        raise ServiceError("These are no vectors", cause=str(error)) from error
    if rows.size == 0:
        return rows.reshape(0, rows.shape[-1])
    if rows.ndim != 2:
        raise ServiceError("These are no vectors", cause=f"an array of shape {rows.shape}, not (n, dim)")
    if not (np.abs(rows) <= _LARGEST).all():
        raise ServiceError("A vector holds a value that is not finite", cause=f"NaN, infinity or above {_LARGEST:g}")
    return rows


def checked_ids(ids: Iterable[VectorId] | VectorId) -> list[VectorId]:
    """Strings and whole numbers, numpy's too: what the files of a store can hold."""
    return [_checked_id(one) for one in ([ids] if isinstance(ids, (str, int, np.integer)) else ids)]


def _checked_id(value: object) -> VectorId:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise ServiceError("This is no id of a vector", cause=f"got {value!r:.80}", hint="use a string or a whole number")


def checked_metadata(
    metadata: Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None, count: int
) -> list[dict[str, Any]]:
    """A dictionary of its own for each vector; a single mapping stands for one vector."""
    if metadata is None:
        return [{} for _ in range(count)]
    entries = [metadata] if isinstance(metadata, Mapping) else list(metadata)
    for entry in entries:
        if entry is not None and not isinstance(entry, Mapping):
            raise ServiceError("Metadata is a mapping for each vector", cause=f"got {entry!r:.80}")
    return [dict(entry or {}) for entry in entries]


def whole_number(name: str, value: object) -> int:
    """At least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ServiceError(f"{name} must be a whole number of at least 1", cause=f"got {value!r:.80}")
    return number


def predicate(accepted: Filter | None) -> Callable[[dict[str, Any]], object] | None:
    """A filter as a function of the metadata."""
    if accepted is None or callable(accepted):
        return accepted
    if not isinstance(accepted, Mapping):
        raise ServiceError("This is no filter", cause=f"got {accepted!r:.80}", hint="pass a mapping or a function")
    fields = dict(accepted)

    def matches(metadata: dict[str, Any]) -> bool:
        return all(
            metadata.get(name) in value
            if isinstance(value, (list, tuple, set, frozenset))
            else metadata.get(name) == value
            for name, value in fields.items()
        )

    return matches
