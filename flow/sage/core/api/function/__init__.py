"""Functions: what users write and operators run."""

from sage.core.api.function.base_function import BaseFunction, FunctionContext, StopSignal
from sage.core.api.function.functions import (
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

__all__ = [
    "BaseFunction",
    "BatchFunction",
    "Collector",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionContext",
    "KeyByFunction",
    "MapFunction",
    "ProcessContext",
    "ProcessFunction",
    "ReduceFunction",
    "SinkFunction",
    "SourceFunction",
    "StopSignal",
]
