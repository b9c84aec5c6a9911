"""What a user gave to an operator (a callable, a class, an instance) and how it becomes something to call."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction
from sage.core.graph.origin import Origin, describe, raised_at

__all__ = ["BoundFunction", "FunctionSpec", "OperatorKind", "Partitioning", "checked_parallelism", "takes"]


class OperatorKind(StrEnum):
    """The operators there are. KEY_BY names a key selector: it stands on edges, never as a node of its own."""

    SOURCE = "source"
    MAP = "map"
    FILTER = "filter"
    FLAT_MAP = "flat_map"
    KEY_BY = "key_by"
    REDUCE = "reduce"
    PROCESS = "process"
    UNION = "union"
    SINK = "sink"


class Partitioning(StrEnum):
    """How records choose among the subtasks of the next operator (names as in Flink's DataStream)."""

    FORWARD = "forward"
    REBALANCE = "rebalance"
    HASH = "hash"


# The methods that do the work, in the order in which they are looked for, and how many arguments they take.
METHODS: dict[OperatorKind, tuple[str, ...]] = {
    OperatorKind.SOURCE: ("execute", "process", "run"),
    OperatorKind.MAP: ("execute", "process", "map"),
    OperatorKind.FILTER: ("execute", "process", "filter"),
    OperatorKind.FLAT_MAP: ("execute", "process", "flat_map"),
    OperatorKind.KEY_BY: ("execute", "process", "get_key"),
    OperatorKind.REDUCE: ("reduce", "execute", "process"),
    OperatorKind.PROCESS: ("process_element",),
    OperatorKind.SINK: ("execute", "process", "invoke"),
}
ARGUMENTS: dict[OperatorKind, int] = {OperatorKind.SOURCE: 0, OperatorKind.REDUCE: 2, OperatorKind.PROCESS: 3}


@dataclass(slots=True)
class BoundFunction:
    """What one subtask calls, and the function object whose `open` and `close` frame it (None for a plain callable)."""

    call: Callable[..., Any]
    instance: BaseFunction | None


@dataclass(slots=True, frozen=True)
class FunctionSpec:
    """A function as the user gave it, checked; `bind` makes one subtask's callable out of it."""

    target: Any
    kind: OperatorKind
    origin: Origin

    @classmethod
    def checked(cls, target: Any, kind: OperatorKind, origin: Origin) -> FunctionSpec:
        """Raises PipelineError, naming the user's line, when `target` cannot work in this operator."""
        spec = cls(target, kind, origin)
        function = getattr(target, spec._method(), None) if spec._is_object() or spec._is_class() else target
        if not callable(function):
            raise spec._wrong(
                f"got {target!r:.80}, which cannot be called", f"pass a function, or a {_class(kind)} class"
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise spec._wrong(
                f"{describe(target)} is an async function",
                "pass a plain function; call_service_async starts several service calls at once",
            )
        if spec._is_class() and not takes(target, 0):
            raise spec._wrong(
                f"{describe(target)} cannot be made without arguments", f"pass an instance: {describe(target)}(...)"
            )
        count = ARGUMENTS.get(kind, 1) + (1 if spec._is_class() else 0)
        if not takes(function, count):
            shown = count - (1 if spec._is_class() else 0)
            raise spec._wrong(
                f"{describe(target)} does not take {shown} argument{'' if shown == 1 else 's'}",
                f"{kind} calls its function with {_CALLED_WITH.get(kind, 'one record')}",
            )
        return spec

    def bind(self, subtask: int, parallelism: int) -> BoundFunction:
        """The callable of one subtask: a new instance of a class, a copy of an instance, a plain callable as it is."""
        target = self.target
        if self._is_class():
            target = self._made()
        elif not self._is_object():
            return self._bind_callable(subtask, parallelism)
        elif subtask > 0:
            target = self._copied(target, parallelism)
        return BoundFunction(getattr(target, self._method()), target if isinstance(target, BaseFunction) else None)

    def label(self) -> str:
        """The function in an error message."""
        return describe(self.target)

    def _bind_callable(self, subtask: int, parallelism: int) -> BoundFunction:
        """A method of a function object takes its object along; any other callable is shared by all subtasks."""
        owner = getattr(self.target, "__self__", None)
        if not isinstance(owner, BaseFunction):
            return BoundFunction(self.target, None)
        instance = owner if subtask == 0 else self._copied(owner, parallelism)
        return BoundFunction(getattr(instance, self.target.__name__), instance)

    def _made(self) -> Any:
        try:
            return self.target()
        except Exception as error:
            where = raised_at(error.__traceback__) or self.origin
            raise self._wrong(f"{self.label()}() raised {type(error).__name__}: {error}", f"look at {where}") from error

    def _copied(self, target: Any, parallelism: int) -> Any:
        try:
            return copy.deepcopy(target)
        except Exception as error:
            raise self._wrong(
                f"this {type(target).__name__} cannot be copied for {parallelism} parallel subtasks: {error}",
                f"pass the class {type(target).__name__} instead of an instance, or prepare such things in open()",
            ) from error

    def _is_class(self) -> bool:
        """A class to make instances of. `int` or `str` are callables like any function."""
        target = self.target
        if not isinstance(target, type):
            return False
        return issubclass(target, BaseFunction) or any(hasattr(target, m) for m in ("execute", "process"))

    def _is_object(self) -> bool:
        """An instance whose method does the work."""
        target = self.target
        if isinstance(target, type):
            return False
        has_method = any(hasattr(target, m) for m in ("execute", "process"))
        return isinstance(target, BaseFunction) or (has_method and not callable(target))

    def _method(self) -> str:
        for method in METHODS[self.kind]:
            if callable(getattr(self.target, method, None)):
                return method
        if callable(self.target) and not isinstance(self.target, type):
            return "__call__"
        names = METHODS[self.kind]
        owner = self.target if isinstance(self.target, type) else type(self.target)
        raise self._wrong(
            f"{owner.__name__} has no method {' or '.join(names[:2])}", f"define {names[0]}, as in {_class(self.kind)}"
        )

    def _wrong(self, cause: str, hint: str) -> PipelineError:
        return PipelineError(
            f"{self.kind} cannot run this function ({self.origin})",
            cause=cause,
            hint=hint,
            details={"operator": str(self.kind), "file": self.origin.file, "line": self.origin.line},
        )


_CALLED_WITH = {
    OperatorKind.SOURCE: "no argument",
    OperatorKind.REDUCE: "what was accumulated so far and one record",
    OperatorKind.PROCESS: "one record, a ProcessContext and a Collector",
}


def _class(kind: OperatorKind) -> str:
    return "".join(part.title() for part in kind.split("_")) + "Function"


def takes(function: Any, count: int) -> bool:
    """Whether `function(*count arguments)` fits its signature; True where a built-in does not show one."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*([None] * count))
    except TypeError:
        return False
    return True


def checked_parallelism(parallelism: object, origin: Origin) -> int | None:
    """The number itself; None stays None. Raises PipelineError."""
    if parallelism is None:
        return None
    if isinstance(parallelism, bool) or not isinstance(parallelism, int) or parallelism < 1:
        raise PipelineError(
            f"parallelism must be a whole number of at least 1 ({origin})", cause=f"got {parallelism!r}"
        )
    return parallelism
