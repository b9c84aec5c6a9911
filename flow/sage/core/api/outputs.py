"""The ends of streams."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.functions import SinkFunction
from sage.core.api.stream import DataStreamSink, Stream
from sage.core.connectors.base import Sink
from sage.core.graph.origin import Origin
from sage.core.graph.spec import OperatorKind
from sage.core.runtime.operators.sink import SinkOperatorFactory

__all__ = ["OutputsMixin", "PrintSink"]

T = TypeVar("T")


class OutputsMixin(Stream[T]):
    """The methods of DataStream that end it."""

    def sink(
        self,
        function: Callable[[T], object]
        | SinkFunction[T]
        | type[SinkFunction[T]]
        | BaseFunction
        | type[BaseFunction]
        | Sink[T],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream: hand every record to a function (what it returns is ignored), or to a connector as `sink_to`.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1, 2]).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [1, 2]
        """
        if isinstance(function, Sink):
            return self.sink_to(function, name=name, parallelism=parallelism, uid=uid)
        chosen: Any = PrintSink("") if function is builtins.print else function
        return DataStreamSink(self._env, self._add(OperatorKind.SINK, chosen, name, parallelism, uid))

    def sink_to(
        self, sink: Sink[T], *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStreamSink:
        """End the stream in a connector: a `sage.core.connectors.base.Sink`, which may commit with checkpoints.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.connectors.base import Sink, SinkWriter
        >>> class Lines(SinkWriter):
        ...     def write(self, batch):
        ...         print(*batch.records)
        >>> class Console(Sink):
        ...     def writer(self, context):
        ...         return Lines()
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1]).sink_to(Console())
        >>> _ = env.submit()
        1
        """
        given: object = sink
        if not isinstance(given, Sink):
            origin = Origin.of_caller()
            raise PipelineError(
                f"sink_to needs a Sink ({origin})",
                cause=f"got {given!r:.80}",
                hint="an instance of a sage.core.connectors.base.Sink; a function goes to sink(...)",
                details={"operator": "sink", "file": origin.file, "line": origin.line},
            )
        factory = SinkOperatorFactory(sink)
        label = type(sink).__name__
        return self._operator_sink(name or label, factory, label=label, parallelism=parallelism, uid=uid)

    def print(
        self, prefix: str = "", *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStreamSink:
        """Write each record as a plain line to stdout, after `prefix`.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2]).print("got ")
        >>> _ = env.submit()
        got 1
        got 2
        """
        sink = PrintSink(prefix)
        return DataStreamSink(self._env, self._add(OperatorKind.SINK, sink, name or "print", parallelism, uid))


class PrintSink(SinkFunction[object]):
    """Writes lines to the stdout of the moment at which the job starts; each line in one piece."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def open(self, context: object) -> None:
        self._stdout = sys.stdout

    def execute(self, value: object) -> None:
        self._stdout.write(f"{self._prefix}{value}\n")

    def flush(self) -> None:
        self._stdout.flush()

    def close(self) -> None:
        self._stdout.flush()
