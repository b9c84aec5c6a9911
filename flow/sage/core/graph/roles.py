"""The roles that a user's function can have in an operator: which of its methods are called, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["FunctionKind", "Method", "OperatorKind", "Role", "role_of"]


class OperatorKind(StrEnum):
    """The operators there are. KEY_BY names a key selector: it stands on edges, never as a node of its own.

    OPERATOR is any that keeps state, time or work in flight: its node has a factory that makes the runtime's `Operator`
    objects; the others are a call for each record.
    """

    SOURCE = "source"
    MAP = "map"
    FILTER = "filter"
    FLAT_MAP = "flat_map"
    KEY_BY = "key_by"
    REDUCE = "reduce"
    PROCESS = "process"
    UNION = "union"
    SINK = "sink"
    OPERATOR = "operator"


class FunctionKind(StrEnum):
    """Functions that operators of kind OPERATOR call, beside those that `OperatorKind` names."""

    AGGREGATE = "aggregate"
    KEYED_PROCESS = "keyed_process"
    CO_MAP = "co_map"
    CO_FLAT_MAP = "co_flat_map"
    CO_PROCESS = "co_process"
    KEYED_CO_PROCESS = "keyed_co_process"
    BROADCAST_PROCESS = "broadcast_process"
    KEYED_BROADCAST_PROCESS = "keyed_broadcast_process"
    WINDOW = "window"
    PROCESS_WINDOW = "process_window"
    JOIN = "join"
    PROCESS_JOIN = "process_join"
    CO_GROUP = "co_group"
    ASYNC = "async"


@dataclass(slots=True, frozen=True)
class Method:
    """A method that the operator calls: its names, in the order in which they are looked for, and its arguments."""

    names: tuple[str, ...]
    arguments: int
    called_with: str


@dataclass(slots=True, frozen=True)
class Role:
    """What a function must offer. A role with one method takes a plain callable too, one with several an object.

    `optional` methods are called where the function has them.
    """

    class_name: str
    methods: tuple[Method, ...]
    optional: tuple[Method, ...] = ()


def role_of(kind: str) -> Role:
    """The role of a function in operators of this kind."""
    return _ROLES[str(kind)]


def _one(
    class_name: str, names: tuple[str, ...], arguments: int = 1, called_with: str = "one record", *optional: Method
) -> Role:
    return Role(class_name, (Method(names, arguments, called_with),), optional)


_PAIR = "a record of each stream"
_CONTEXT = "one record, a context and a Collector"
_ACCUMULATOR = "an accumulator"
_ON_TIMER = Method(("on_timer",), 3, "a time, a context and a Collector")

_ROLES: dict[str, Role] = {
    OperatorKind.SOURCE: _one("SourceFunction", ("execute", "process", "run"), 0, "no argument"),
    OperatorKind.MAP: _one("MapFunction", ("execute", "process", "map")),
    OperatorKind.FILTER: _one("FilterFunction", ("execute", "process", "filter")),
    OperatorKind.FLAT_MAP: _one("FlatMapFunction", ("execute", "process", "flat_map")),
    OperatorKind.KEY_BY: _one("KeyByFunction", ("execute", "process", "get_key")),
    OperatorKind.REDUCE: _one(
        "ReduceFunction", ("reduce", "execute", "process"), 2, "what was accumulated so far and one record"
    ),
    OperatorKind.PROCESS: _one(
        "ProcessFunction", ("process_element",), 3, "one record, a ProcessContext and a Collector"
    ),
    OperatorKind.SINK: _one("SinkFunction", ("execute", "process", "invoke")),
    FunctionKind.AGGREGATE: Role(
        "AggregateFunction",
        (
            Method(("create_accumulator",), 0, "no argument"),
            Method(("add",), 2, "one record and an accumulator"),
            Method(("get_result",), 1, _ACCUMULATOR),
        ),
    ),
    FunctionKind.KEYED_PROCESS: _one("KeyedProcessFunction", ("process_element",), 3, _CONTEXT, _ON_TIMER),
    FunctionKind.CO_MAP: Role(
        "CoMapFunction", (Method(("map1",), 1, "one record"), Method(("map2",), 1, "one record"))
    ),
    FunctionKind.CO_FLAT_MAP: Role(
        "CoFlatMapFunction", (Method(("flat_map1",), 1, "one record"), Method(("flat_map2",), 1, "one record"))
    ),
    FunctionKind.CO_PROCESS: Role(
        "CoProcessFunction",
        (Method(("process_element1",), 3, _CONTEXT), Method(("process_element2",), 3, _CONTEXT)),
    ),
    FunctionKind.KEYED_CO_PROCESS: Role(
        "KeyedCoProcessFunction",
        (Method(("process_element1",), 3, _CONTEXT), Method(("process_element2",), 3, _CONTEXT)),
        (_ON_TIMER,),
    ),
    FunctionKind.BROADCAST_PROCESS: Role(
        "BroadcastProcessFunction",
        (Method(("process_element",), 3, _CONTEXT), Method(("process_broadcast_element",), 3, _CONTEXT)),
    ),
    FunctionKind.KEYED_BROADCAST_PROCESS: Role(
        "KeyedBroadcastProcessFunction",
        (Method(("process_element",), 3, _CONTEXT), Method(("process_broadcast_element",), 3, _CONTEXT)),
        (_ON_TIMER,),
    ),
    FunctionKind.WINDOW: _one("WindowFunction", ("apply",), 4, "a key, a window, the window's records and a Collector"),
    FunctionKind.PROCESS_WINDOW: _one(
        "ProcessWindowFunction",
        ("process",),
        4,
        "a key, a context, the window's records and a Collector",
        Method(("clear",), 1, "a context"),
    ),
    FunctionKind.JOIN: _one("JoinFunction", ("join", "execute", "process"), 2, _PAIR),
    FunctionKind.PROCESS_JOIN: _one(
        "ProcessJoinFunction", ("process_element",), 4, f"{_PAIR}, a context and a Collector"
    ),
    FunctionKind.CO_GROUP: _one(
        "CoGroupFunction", ("co_group",), 3, "the records of the first stream, those of the second, and a Collector"
    ),
    FunctionKind.ASYNC: _one("AsyncFunction", ("async_invoke", "execute", "process")),
}
