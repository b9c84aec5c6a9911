"""What pipelines import.

from sage.core.api import LocalEnvironment

env = LocalEnvironment("hello-sage")
env.from_collection(["Hello", "World", "SAGE"]).map(lambda x: f"Processed: {x}").print()
env.submit()
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream, DataStreamSink, KeyedStream
    from sage.core.api.function import BaseFunction, FunctionContext, StopSignal
    from sage.core.api.job_handle import JobHandle
    from sage.core.api.local_environment import LocalEnvironment
    from sage.core.api.output_tag import OutputTag

__all__ = [
    "BaseFunction",
    "DataStream",
    "DataStreamSink",
    "FunctionContext",
    "JobHandle",
    "KeyedStream",
    "LocalEnvironment",
    "OutputTag",
    "StopSignal",
]

_MODULES = {
    "datastream": ("DataStream", "DataStreamSink", "KeyedStream"),
    "function": ("BaseFunction", "FunctionContext", "StopSignal"),
    "job_handle": ("JobHandle",),
    "local_environment": ("LocalEnvironment",),
    "output_tag": ("OutputTag",),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
