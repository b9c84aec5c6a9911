"""A logical graph as bytes, with the user's functions in it, and back.

Lambdas and functions of the script itself go along by value (cloudpickle), so another Python of the same version can
run the graph without the script. The bytes are for this user's own processes: loading them runs code, so never load
what came from elsewhere.
"""

from __future__ import annotations

import pickle

from sage.common.errors import PipelineError
from sage.core.graph.logical import LogicalGraph, LogicalNode

__all__ = ["dump_graph", "load_graph"]

_MAGIC = b"sage-graph-1\n"


def dump_graph(graph: LogicalGraph) -> bytes:
    """The graph. Raises PipelineError, naming operator and line, for a function that cannot leave this process."""
    import cloudpickle

    try:
        return _MAGIC + bytes(cloudpickle.dumps(graph))
    except Exception as error:
        raise _unpicklable(graph, error) from error


def load_graph(data: bytes) -> LogicalGraph:
    """What `dump_graph` gave. Raises PipelineError for anything else."""
    if not data.startswith(_MAGIC):
        raise PipelineError("This is no graph that was written by dump_graph", cause=f"it begins with {data[:12]!r}")
    graph = pickle.loads(data[len(_MAGIC) :])  # noqa: S301 - written by this user's own process
    assert isinstance(graph, LogicalGraph), "written by dump_graph"
    return graph


def _unpicklable(graph: LogicalGraph, error: Exception) -> PipelineError:
    node = next((node for node in graph.nodes if not _picklable(node)), graph.nodes[0])
    return PipelineError(
        f"Operator {node.name!r} cannot leave this process ({node.origin})",
        cause=f"{type(error).__name__}: {error}",
        hint="pass a class instead of an instance, or open files, locks and connections in open()",
        details={"operator": node.name, "file": node.origin.file, "line": node.origin.line},
    )


def _picklable(node: LogicalNode) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(node)
    except Exception:
        return False
    return True
