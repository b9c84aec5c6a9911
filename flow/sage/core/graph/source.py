"""What a source reads: something in memory, an iterable, or a function that is called for each record."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.function.functions import BatchFunction, SourceFunction
from sage.core.connectors.base import Source
from sage.core.graph.origin import Origin, describe
from sage.core.graph.spec import FunctionSpec, OperatorKind

__all__ = ["SourceKind", "SourceSpec"]


class SourceKind(StrEnum):
    """How a source gives its records."""

    COLLECTION = "collection"  # a sequence: sliced, never waits
    ITERABLE = "iterable"  # iterated once, may wait
    FACTORY = "factory"  # called once, returns an iterable
    FUNCTION = "function"  # called once a record, until StopSignal
    FUTURE = "future"  # the beginning of a loop: its name
    CONNECTOR = "connector"  # a `sage.core.connectors.base.Source`: splits with positions


@dataclass(slots=True, frozen=True)
class SourceSpec:
    """A source, checked. `function` is set for FACTORY and FUNCTION, `data` for the others (CONNECTOR: the Source)."""

    kind: SourceKind
    bounded: bool
    data: Any = None
    function: FunctionSpec | None = None

    @classmethod
    def collection(cls, data: Iterable[Any], origin: Origin) -> SourceSpec:
        """A snapshot of a list, tuple, set or dict; a range as it is; anything else is iterated when the job runs."""
        if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
            raise _refused(f"got {data!r:.80}", "pass a list or another iterable of records", origin)
        if isinstance(data, range):
            return cls(SourceKind.COLLECTION, True, data)
        if isinstance(data, (list, tuple, set, frozenset, dict)):
            return cls(SourceKind.COLLECTION, True, list(data))
        return cls(SourceKind.ITERABLE, True, data)

    @classmethod
    def batch(cls, data: Any, origin: Origin) -> SourceSpec:
        """An iterable, a BatchFunction, or a function that is called once and returns (or yields) the records."""
        if _is_function_object(data, BatchFunction):
            return cls._function(data, origin, bounded=True)
        if callable(data):
            return cls(SourceKind.FACTORY, True, function=FunctionSpec.checked(data, OperatorKind.SOURCE, origin))
        return cls.collection(data, origin)

    @classmethod
    def any(cls, source: Any, origin: Origin) -> SourceSpec:
        """A Source, a SourceFunction, a generator function, a function that returns a record each time, an iterable."""
        if isinstance(source, Source):
            return cls(SourceKind.CONNECTOR, source.bounded, source)
        if isinstance(source, Iterable) and not callable(source) and not isinstance(source, SourceFunction):
            return cls.collection(source, origin)
        if inspect.isgeneratorfunction(source):
            return cls(SourceKind.FACTORY, False, function=FunctionSpec.checked(source, OperatorKind.SOURCE, origin))
        if not callable(source) and not hasattr(source, "execute") and not hasattr(source, "process"):
            raise _refused(f"got {source!r:.80}", "pass a SourceFunction, a generator or a function", origin)
        return cls._function(source, origin, bounded=_is_function_object(source, BatchFunction))

    @classmethod
    def _function(cls, source: Any, origin: Origin, *, bounded: bool) -> SourceSpec:
        return cls(SourceKind.FUNCTION, bounded, function=FunctionSpec.checked(source, OperatorKind.SOURCE, origin))

    def label(self) -> str:
        """The source in `explain()` and error messages."""
        if self.function is not None:
            return self.function.label()
        if self.kind is SourceKind.COLLECTION:
            return f"{len(self.data):,} record{'' if len(self.data) == 1 else 's'}"
        if self.kind is SourceKind.FUTURE:
            return "what comes back"
        if self.kind is SourceKind.CONNECTOR:
            return type(self.data).__name__
        return describe(self.data)


def _is_function_object(value: Any, base: type[SourceFunction[Any]]) -> bool:
    return isinstance(value, base) or (isinstance(value, type) and issubclass(value, base))


def _refused(cause: str, hint: str, origin: Origin) -> PipelineError:
    return PipelineError(
        f"source cannot read this ({origin})",
        cause=cause,
        hint=hint,
        details={"operator": "source", "file": origin.file, "line": origin.line},
    )
