"""Loops: a stream that is known before what flows in it (after Flink's IterativeStream, without its time limit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.stream import DataStreamSink, Stream
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind
from sage.core.graph.spec import OperatorKind
from sage.core.runtime.feedback import FeedbackFactory

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

__all__ = ["FeedbackMixin"]

T = TypeVar("T")


class FeedbackMixin(Stream[T]):
    """The method of DataStream that closes a loop."""

    def fill_future(self, future: DataStream[T], *, name: str | None = None, uid: str | None = None) -> DataStreamSink:
        """Let the records of this stream come out of `future`, which `env.from_future(...)` has made: a loop.

        The job ends when its other sources have ended and no record is left in the loop; a record that goes round for
        ever keeps it running until it is cancelled. The way back holds as many records as need be. Records keep their
        event times, but the future counts for no watermark: windows in a loop see its records as late when the rest of
        the stream is ahead.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> again = env.from_future("again")
        >>> halves = env.from_collection([8, 3]).union(again).map(lambda x: x // 2)
        >>> _ = halves.filter(lambda x: x > 0).fill_future(again)
        >>> _ = halves.sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [0, 0, 1, 1, 2, 4]
        """
        origin = Origin.of_caller()
        self._same_environment(future, "fill_future", origin)
        source = future._node.source
        graph = self._env._graph
        if source is None or source.kind is not SourceKind.FUTURE:
            raise PipelineError(
                f"fill_future needs a future ({origin})",
                cause=f"{future.name!r} is the stream of an operator",
                hint='make one with env.from_future("name")',
            )
        if any(filled == future._node.index for _, filled in graph.feedback):
            raise PipelineError(
                f"{future.name!r} is filled twice ({origin})", hint="union the streams, and fill it with that"
            )
        node = self._operator_node(
            OperatorKind.SINK,
            name or f"fill {future.name}",
            FeedbackFactory(str(source.data)),
            (),
            label=future.name,
            parallelism=None,
            uid=uid,
            origin=origin,
        )
        graph.feedback.append((node.index, future._node.index))
        return DataStreamSink(self._env, node)
