"""Fields of records, by position, key or attribute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.common.errors import PipelineError
from sage.core.graph.origin import Origin

__all__ = ["FieldFold", "get_field", "with_field"]


@dataclass(slots=True, frozen=True)
class FieldFold:
    """Folds one field of two records; the rest is the first record's."""

    fold: Callable[[Any, Any], Any]
    field: int | str
    origin: Origin

    def __post_init__(self) -> None:
        field: object = self.field
        if isinstance(field, bool) or not isinstance(field, (int, str)):
            raise PipelineError(
                f"a field is a position, a key or an attribute's name ({self.origin})", cause=f"got {field!r:.80}"
            )

    def __call__(self, first: Any, second: Any) -> Any:
        return with_field(first, self.field, self.fold(get_field(first, self.field), get_field(second, self.field)))


def get_field(record: Any, field: int | str) -> Any:
    """`record[field]`, or the attribute of that name."""
    if isinstance(field, str) and not isinstance(record, dict):
        return getattr(record, field)
    return record[field]


def with_field(record: Any, field: int | str, value: Any) -> Any:
    """A record like this one with another value in the field; the record itself is left as it is."""
    if isinstance(record, dict):
        return {**record, field: value}
    if isinstance(record, list) and isinstance(field, int):
        return [value if index == field % len(record) else old for index, old in enumerate(record)]
    if isinstance(record, tuple):
        if hasattr(record, "_replace"):
            name = record._fields[field] if isinstance(field, int) else field  # type: ignore[attr-defined]
            return record._replace(**{name: value})
        if isinstance(field, int):
            return tuple(value if index == field % len(record) else old for index, old in enumerate(record))
    if dataclasses.is_dataclass(record) and not isinstance(record, type) and isinstance(field, str):
        return dataclasses.replace(record, **{field: value})
    raise TypeError(f"{type(record).__name__} has no field {field!r} that could be replaced")
