"""Functions: what users write and operators run."""

from sage.core.api.function.async_functions import AsyncFunction
from sage.core.api.function.base_function import BaseFunction, FunctionContext, StopSignal
from sage.core.api.function.broadcast_functions import (
    BroadcastContext,
    BroadcastProcessFunction,
    BroadcastState,
    KeyedBroadcastContext,
    KeyedBroadcastProcessFunction,
    KeyedReadOnlyContext,
    OnTimerReadOnlyContext,
    ReadOnlyBroadcastState,
    ReadOnlyContext,
)
from sage.core.api.function.co_functions import CoFlatMapFunction, CoMapFunction
from sage.core.api.function.contexts import KeyedProcessContext, OnTimerContext, TimerService
from sage.core.api.function.functions import (
    AggregateFunction,
    BatchFunction,
    Collector,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    MapFunction,
    ProcessContext,
    ProcessFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
)
from sage.core.api.function.process_functions import (
    CoProcessFunction,
    KeyedCoProcessFunction,
    KeyedProcessFunction,
)
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.function.window_functions import (
    CoGroupFunction,
    JoinFunction,
    ProcessJoinFunction,
    ProcessWindowContext,
    ProcessWindowFunction,
    WindowFunction,
)

__all__ = [
    "AggregateFunction",
    "AsyncFunction",
    "BaseFunction",
    "BatchFunction",
    "BroadcastContext",
    "BroadcastProcessFunction",
    "BroadcastState",
    "CoFlatMapFunction",
    "CoGroupFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "Collector",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionContext",
    "JoinFunction",
    "KeyByFunction",
    "KeyedBroadcastContext",
    "KeyedBroadcastProcessFunction",
    "KeyedCoProcessFunction",
    "KeyedProcessContext",
    "KeyedProcessFunction",
    "KeyedReadOnlyContext",
    "MapFunction",
    "OnTimerContext",
    "OnTimerReadOnlyContext",
    "ProcessContext",
    "ProcessFunction",
    "ProcessJoinFunction",
    "ProcessWindowContext",
    "ProcessWindowFunction",
    "ReadOnlyBroadcastState",
    "ReadOnlyContext",
    "ReduceFunction",
    "RetryPolicy",
    "SinkFunction",
    "SourceFunction",
    "StopSignal",
    "TimerService",
    "WindowFunction",
]
