"""What pipelines import.

from sage.core.api import LocalEnvironment

env = LocalEnvironment("hello-sage")
env.from_collection(["Hello", "World", "SAGE"]).map(lambda x: f"Processed: {x}").print()
env.submit()
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.core.api.broadcast import BroadcastConnectedStream, BroadcastStream
    from sage.core.api.columns import Expression, col, lit
    from sage.core.api.columns.stream import ColumnStream
    from sage.core.api.connected import ConnectedStreams, KeyedConnectedStreams
    from sage.core.api.datastream import DataStream, DataStreamSink, KeyedStream
    from sage.core.api.function import (
        AggregateFunction,
        AsyncFunction,
        BaseFunction,
        BatchFunction,
        BroadcastContext,
        BroadcastProcessFunction,
        BroadcastState,
        CoFlatMapFunction,
        CoGroupFunction,
        Collector,
        CoMapFunction,
        CoProcessFunction,
        FilterFunction,
        FlatMapFunction,
        FunctionContext,
        JoinFunction,
        KeyByFunction,
        KeyedBroadcastContext,
        KeyedBroadcastProcessFunction,
        KeyedCoProcessFunction,
        KeyedProcessContext,
        KeyedProcessFunction,
        KeyedReadOnlyContext,
        MapFunction,
        OnTimerContext,
        ProcessContext,
        ProcessFunction,
        ProcessJoinFunction,
        ProcessWindowContext,
        ProcessWindowFunction,
        ReadOnlyBroadcastState,
        ReadOnlyContext,
        ReduceFunction,
        SinkFunction,
        SourceFunction,
        StopSignal,
        TimerService,
        WindowFunction,
    )
    from sage.core.api.job_handle import JobHandle
    from sage.core.api.local_environment import LocalEnvironment
    from sage.core.api.output_tag import OutputTag
    from sage.core.api.state import (
        AggregatingStateDescriptor,
        ListStateDescriptor,
        MapStateDescriptor,
        ReducingStateDescriptor,
        StateTtlConfig,
        ValueStateDescriptor,
    )
    from sage.core.api.time import WatermarkStrategy
    from sage.core.api.windowed import WindowedStream

__all__ = [
    "AggregateFunction",
    "AggregatingStateDescriptor",
    "AsyncFunction",
    "BaseFunction",
    "BatchFunction",
    "BroadcastConnectedStream",
    "BroadcastContext",
    "BroadcastProcessFunction",
    "BroadcastState",
    "BroadcastStream",
    "CoFlatMapFunction",
    "CoGroupFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "Collector",
    "ColumnStream",
    "ConnectedStreams",
    "DataStream",
    "DataStreamSink",
    "Expression",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionContext",
    "JobHandle",
    "JoinFunction",
    "KeyByFunction",
    "KeyedBroadcastContext",
    "KeyedBroadcastProcessFunction",
    "KeyedCoProcessFunction",
    "KeyedConnectedStreams",
    "KeyedProcessContext",
    "KeyedProcessFunction",
    "KeyedReadOnlyContext",
    "KeyedStream",
    "ListStateDescriptor",
    "LocalEnvironment",
    "MapFunction",
    "MapStateDescriptor",
    "OnTimerContext",
    "OutputTag",
    "ProcessContext",
    "ProcessFunction",
    "ProcessJoinFunction",
    "ProcessWindowContext",
    "ProcessWindowFunction",
    "ReadOnlyBroadcastState",
    "ReadOnlyContext",
    "ReduceFunction",
    "ReducingStateDescriptor",
    "SinkFunction",
    "SourceFunction",
    "StateTtlConfig",
    "StopSignal",
    "TimerService",
    "ValueStateDescriptor",
    "WatermarkStrategy",
    "WindowFunction",
    "WindowedStream",
    "col",
    "lit",
]

_MODULES = {
    "columns": (
        "Expression",
        "col",
        "lit",
    ),
    "columns.stream": ("ColumnStream",),
    "broadcast": ("BroadcastConnectedStream", "BroadcastStream"),
    "connected": ("ConnectedStreams", "KeyedConnectedStreams"),
    "datastream": (
        "DataStream",
        "DataStreamSink",
        "KeyedStream",
    ),
    "function": (
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
        "ProcessContext",
        "ProcessFunction",
        "ProcessJoinFunction",
        "ProcessWindowContext",
        "ProcessWindowFunction",
        "ReadOnlyBroadcastState",
        "ReadOnlyContext",
        "ReduceFunction",
        "SinkFunction",
        "SourceFunction",
        "StopSignal",
        "TimerService",
        "WindowFunction",
    ),
    "job_handle": ("JobHandle",),
    "local_environment": ("LocalEnvironment",),
    "output_tag": ("OutputTag",),
    "state": (
        "AggregatingStateDescriptor",
        "ListStateDescriptor",
        "MapStateDescriptor",
        "ReducingStateDescriptor",
        "StateTtlConfig",
        "ValueStateDescriptor",
    ),
    "time": ("WatermarkStrategy",),
    "windowed": ("WindowedStream",),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
