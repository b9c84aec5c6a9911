"""The dataflow engine.

    sage.core.api       what pipelines import: environments, streams, functions
    sage.core.graph     logical graph → checks → chained physical plan
    sage.core.runtime   tasks, channels with control events in order, metrics; `runtime.local` runs tasks on threads
    sage.core.runner    runs a pipeline file, for the command line

Importing this package imports nothing else.
"""

__all__: list[str] = []
