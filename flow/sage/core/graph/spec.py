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
from sage.core.graph.roles import FunctionKind, Method, OperatorKind, role_of

__all__ = [
    "BoundFunction",
    "FunctionKind",
    "FunctionSpec",
    "OperatorKind",
    "Partitioning",
    "checked_parallelism",
    "takes",
]


class Partitioning(StrEnum):
    """How records choose among the subtasks of the next operator (names as in Flink's DataStream)."""

    FORWARD = "forward"  # subtask i to subtask i
    REBALANCE = "rebalance"  # in turn to every subtask
    RESCALE = "rescale"  # in turn to the subtasks that are this sender's share
    BROADCAST = "broadcast"  # every record to every subtask
    GLOBAL = "global"  # every record to the first subtask
    HASH = "hash"  # by key group


@dataclass(slots=True)
class BoundFunction:
    """What one subtask calls.

    `call` is the (first) method of the role; `target` the object whose methods are called where a role has several;
    `instance` the function object whose `open` and `close` frame it (None for a plain callable).
    """

    call: Callable[..., Any]
    instance: BaseFunction | None
    target: Any = None


@dataclass(slots=True, frozen=True)
class FunctionSpec:
    """A function as the user gave it, checked; `bind` makes one subtask's callable out of it."""

    target: Any
    kind: OperatorKind | FunctionKind
    origin: Origin

    @classmethod
    def checked(
        cls, target: Any, kind: OperatorKind | FunctionKind, origin: Origin, *, asynchronous: bool = False
    ) -> FunctionSpec:
        """Raises PipelineError, naming the user's line, when `target` cannot work in this operator.

        `asynchronous`: an operator that runs coroutines takes an async function too.
        """
        spec = cls(target, kind, origin)
        for method in role_of(kind).methods:
            spec._check(method, asynchronous)
        for method in role_of(kind).optional:
            if isinstance(target, type | BaseFunction) and hasattr(target, method.names[0]):
                spec._check(method, False)
        return spec

    @property
    def is_async(self) -> bool:
        """Whether calls return coroutines."""
        return _is_async(self._function(role_of(self.kind).methods[0]))

    def bind(self, subtask: int, parallelism: int) -> BoundFunction:
        """The callable of one subtask: a new instance of a class, a copy of an instance, a plain callable as it is."""
        target = self.target
        if self._is_class():
            target = self._made()
        elif not self._is_object():
            return self._bind_callable(subtask, parallelism)
        elif subtask > 0:
            target = self._copied(target, parallelism)
        call = getattr(target, self._method(role_of(self.kind).methods[0]))
        return BoundFunction(call, target if isinstance(target, BaseFunction) else None, target)

    @property
    def is_constant(self) -> bool:
        """Whether it is the key of `window_all`, which is the same for all records."""
        return getattr(self.target, "is_constant_key", False) is True

    def label(self) -> str:
        """The function in an error message."""
        return describe(self.target)

    def _bind_callable(self, subtask: int, parallelism: int) -> BoundFunction:
        """A method of a function object takes its object along; any other callable is shared by all subtasks."""
        owner = getattr(self.target, "__self__", None)
        if not isinstance(owner, BaseFunction):
            return BoundFunction(self.target, None, self.target)
        instance = owner if subtask == 0 else self._copied(owner, parallelism)
        call = getattr(instance, self.target.__name__)
        return BoundFunction(call, instance, call)

    def _check(self, method: Method, asynchronous: bool) -> None:
        function = self._function(method)
        shown = describe(self.target)
        if not callable(function):
            field = f"lambda record: record[{self.target!r}], or " if isinstance(self.target, str) else ""
            raise self._wrong(
                f"got {self.target!r:.80}, which cannot be called",
                f"pass {field}a function, or a {role_of(self.kind).class_name} class",
            )
        if self._is_class() and inspect.isabstract(self.target):
            missing = ", ".join(sorted(self.target.__abstractmethods__))
            raise self._wrong(f"{shown} does not define {missing}", f"define {missing}")
        if _is_async(function) and not asynchronous:
            raise self._wrong(
                f"{shown} is an async function",
                "map, flat_map, filter, process and async_map take async functions, other operators plain ones",
            )
        if self._is_class() and not takes(self.target, 0):
            raise self._wrong(f"{shown} cannot be made without arguments", f"pass an instance: {shown}(...)")
        self._check_call(function, method, shown)

    def _check_call(self, function: Any, method: Method, shown: str) -> None:
        """It takes the operator's arguments, and what it returns is looked at."""
        alone = role_of(self.kind).methods == (method,)
        named = shown if alone else f"{shown}: {method.names[0]}"
        if not takes(function, method.arguments + (1 if self._needs_self(method) else 0)):
            raise self._wrong(
                f"{named} does not take {method.arguments} argument{'' if method.arguments == 1 else 's'}",
                f"{self.kind} calls {'its function' if alone else method.names[0]} with {method.called_with}",
            )
        collects = "Collector" in method.called_with
        if inspect.isgeneratorfunction(function) and (collects or self.kind in _NEVER_ITERATED):
            raise self._wrong(
                f"{named} yields, and {self.kind} takes nothing that is yielded",
                "call out.collect(...) for each result" if collects else "return instead",
            )

    def _function(self, method: Method) -> Any:
        """What is called: the method of an object or class, or the callable itself."""
        if self._is_object() or self._is_class():
            return getattr(self.target, self._method(method), None)
        if len(role_of(self.kind).methods) > 1:
            raise self._wrong(
                f"got {self.target!r:.80}, which has no method {method.names[0]}",
                f"pass a {role_of(self.kind).class_name} class or instance",
            )
        return self.target

    def _needs_self(self, method: Method) -> bool:
        """A method looked up on a class shows `self`, unless it is a static or class method."""
        if not self._is_class():
            return False
        found = inspect.getattr_static(self.target, self._method(method))
        return not isinstance(found, (staticmethod, classmethod))

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
        return issubclass(target, BaseFunction) or self._has_method(target)

    def _is_object(self) -> bool:
        """An instance whose method does the work."""
        target = self.target
        if isinstance(target, type):
            return False
        return isinstance(target, BaseFunction) or (self._has_method(target) and not callable(target))

    def _has_method(self, target: Any) -> bool:
        first = role_of(self.kind).methods[0].names
        own = first if self.kind not in _KNOWN_BY_TWO else ("execute", "process")
        return any(hasattr(target, name) for name in own)

    def _method(self, method: Method) -> str:
        for name in method.names:
            if callable(getattr(self.target, name, None)):
                return name
        several = len(role_of(self.kind).methods) > 1
        if self.kind in _CO_PROCESS and hasattr(self.target, "process_broadcast_element"):
            raise self._wrong(
                "this stream is not broadcast with a state", "connect(rules.broadcast(MapStateDescriptor(...)))"
            )
        if callable(self.target) and not isinstance(self.target, type) and not several:
            return "__call__"
        owner = self.target if isinstance(self.target, type) else type(self.target)
        raise self._wrong(
            f"{owner.__name__} has no method {' or '.join(method.names[:2])}",
            f"define {method.names[0]}, as in {role_of(self.kind).class_name}",
        )

    def _wrong(self, cause: str, hint: str) -> PipelineError:
        return PipelineError(
            f"{self.kind} cannot run this function ({self.origin})",
            cause=cause,
            hint=hint,
            details={"operator": str(self.kind), "file": self.origin.file, "line": self.origin.line},
        )


# str, bytes and others have methods named like the third name of these roles (`filter`, `map` of a table, …).
_KNOWN_BY_TWO = frozenset(
    {OperatorKind.SOURCE, OperatorKind.MAP, OperatorKind.FILTER, OperatorKind.FLAT_MAP, OperatorKind.KEY_BY}
    | {OperatorKind.REDUCE, OperatorKind.SINK}
)

_CO_PROCESS = frozenset({FunctionKind.CO_PROCESS, FunctionKind.KEYED_CO_PROCESS})
# Of a generator function nothing would run.
_NEVER_ITERATED = frozenset({OperatorKind.FILTER, OperatorKind.KEY_BY, OperatorKind.SINK})


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


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
