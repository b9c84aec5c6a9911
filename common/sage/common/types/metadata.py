"""Metadata of documents and vectors: a read-only mapping of names to plain JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sage.common.errors import ConfigError

__all__ = ["Metadata"]


class Metadata(Mapping[str, Any]):
    """An immutable, comparable mapping; every value survives a way through JSON unchanged.

    Raises ConfigError for a name that is no string or a value that JSON cannot carry (NaN included).
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        merged = {**(values or {}), **more}
        for name, value in merged.items():
            _check(name, value)
        self._values = merged

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metadata({self._values!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._values == dict(other)

    def __hash__(self) -> int:
        return hash(json.dumps(self._values, sort_keys=True))

    def updated(self, **changes: Any) -> Metadata:
        """A copy with these names set."""
        return Metadata(self._values, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dict(self._values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metadata:
        return cls(values)


def _check(name: object, value: object) -> None:
    if not isinstance(name, str):
        raise ConfigError("A metadata name must be text", cause=f"it is {name!r}")
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, list):
        for item in value:
            _check(name, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, item)
    else:
        raise ConfigError(
            f"The metadata value of {name!r} cannot be written as JSON", cause=f"it is {type(value).__name__} {value!r}"
        )
