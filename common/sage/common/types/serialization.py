"""How values become JSON and come back: a protocol that any type can follow, and two functions that use it.

No pickle: what comes from outside must not run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from sage.common.errors import ConfigError

__all__ = ["Serializable", "dumps", "loads"]


@runtime_checkable
class Serializable(Protocol):
    """A value that knows itself as plain JSON values: `from_dict(x.to_dict()) == x`."""

    def to_dict(self) -> dict[str, Any]: ...

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], /) -> Self: ...


S = TypeVar("S", bound=Serializable)


def dumps(value: Serializable) -> str:
    """One line of JSON."""
    return json.dumps(value.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(text: str | bytes, kind: type[S]) -> S:
    """A `kind` from its JSON. Raises ConfigError when the text is not one."""
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise TypeError(f"a JSON object is needed, not {type(record).__name__}")
        return kind.from_dict(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"This is no {kind.__name__}", cause=f"{type(error).__name__}: {error}") from error
