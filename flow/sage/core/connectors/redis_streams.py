"""Redis Streams as sources and sinks, through redis-py (extra `redis`).

A source keeps its own positions, the ids of the last entries, in checkpoints: a restored job reads every entry behind
them. A consumer group only shows others how far it has come.

A sink has no transactions of Redis to prepare, so what it is to write stands in the checkpoint. When that is complete
the entries are added together with a mark, in one MULTI; where the mark is there already, nothing is added.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec

from sage.common.errors import PipelineError, UpstreamError
from sage.core.connectors.backoff import Backoff, Retry
from sage.core.connectors.base import ReaderContext, Sink, SinkContext, SinkWriter, Source, SourceReader, Split
from sage.core.connectors.threaded import ThreadedReader
from sage.core.runtime.events import Batch

__all__ = ["RedisEntry", "RedisStreamSink", "RedisStreamSource"]

log = logging.getLogger("sage.core")
_COUNT = 500  # entries that are asked for at once
_BLOCK_MS = 200
_MARK_S = 7 * 86_400  # how long a mark is kept: longer than any job waits to be restored
_PLAIN = (str, bytes, int, float)


class RedisEntry(NamedTuple):
    """An entry of a stream."""

    stream: str
    id: str
    fields: dict[str, str]


@dataclass(frozen=True)
class RedisStreamSource(Source[RedisEntry]):
    """`start`: "0" for every entry, "$" for those that come after the first start, or an id to go on behind."""

    url: str
    streams: tuple[str, ...]
    start: str = "0"
    group: str | None = None
    retry: Retry = field(default_factory=Retry)
    bounded = False

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split(stream) for stream in self.streams]

    def reader(self, context: ReaderContext) -> SourceReader[RedisEntry]:
        """See Source."""
        return RedisStreamReader(self)


class RedisStreamReader(ThreadedReader[RedisEntry]):
    """The id of the last entry is a stream's position."""

    def __init__(self, source: RedisStreamSource) -> None:
        super().__init__("redis-streams")
        self._source = source
        self._redis = _redis()
        self._client: Any = None

    def run(self, splits: dict[str, Any]) -> None:
        """See ThreadedReader."""
        self._client = _client(self._redis, self._source.url)
        lost = (self._redis.exceptions.ConnectionError, self._redis.exceptions.TimeoutError)
        try:
            self.again(partial(self._connected, splits), Backoff(self._source.retry, _shown(self._source.url)), lost)
        except self._redis.exceptions.RedisError as error:
            raise _refused(self._source.url, error) from error

    def notify_complete(self, checkpoint_id: int, splits: Sequence[Split]) -> None:
        """See SourceReader: tells the group."""
        if self._source.group is None or self._client is None:
            return
        try:
            for split in splits:
                if split.position is not None:
                    self._client.xgroup_setid(split.id, self._source.group, split.position)
        except self._redis.exceptions.RedisError as error:  # it only shows; the next checkpoint tells it again
            log.warning("%s: the group %r is behind: %s", _shown(self._source.url), self._source.group, error)

    def close(self) -> None:
        """See SourceReader."""
        super().close()
        if self._client is not None:
            self._client.close()

    def _connected(self, positions: dict[str, Any], backoff: Backoff) -> None:
        for stream, position in positions.items():
            if position is None:
                positions[stream] = self._beginning(stream)
            if self._source.group is not None:
                self._make_group(stream, positions[stream])
        while not self.is_closed:
            answer = self._client.xread(positions, count=_COUNT, block=_BLOCK_MS)
            backoff.succeeded()
            for stream, entries in answer or ():
                for entry_id, fields in entries:
                    self.put(stream, RedisEntry(stream, entry_id, fields or {}), entry_id)
                    positions[stream] = entry_id

    def _beginning(self, stream: str) -> str:
        if self._source.start != "$":
            return self._source.start
        newest = self._client.xrevrange(stream, count=1)
        return str(newest[0][0]) if newest else "0-0"

    def _make_group(self, stream: str, position: str) -> None:
        try:
            self._client.xgroup_create(stream, self._source.group, id=position, mkstream=True)
        except self._redis.exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


@dataclass(frozen=True)
class RedisStreamSink(Sink[Mapping[str, Any]]):
    """Mappings as entries; values that are no text or numbers are written as JSON. `max_length`: about how many entries
    the stream keeps."""

    url: str
    stream: str
    max_length: int | None = None
    exactly_once = True

    def writer(self, context: SinkContext) -> SinkWriter[Mapping[str, Any]]:
        """See Sink."""
        return RedisStreamWriter(self)


class RedisStreamWriter(SinkWriter[Mapping[str, Any]]):
    """A committable is [mark, entries]."""

    def __init__(self, sink: RedisStreamSink) -> None:
        self._sink = sink
        self._redis = _redis()
        self._client = _client(self._redis, sink.url)
        self._entries: list[dict[str, Any]] = []

    def write(self, batch: Batch) -> None:
        """See SinkWriter."""
        self._entries += [_entry(record) for record in batch.records]

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """See SinkWriter."""
        entries, self._entries = self._entries, []
        return [[f"sage:committed:{uuid.uuid4().hex}", entries]] if entries else []

    def commit(self, committables: Sequence[Any]) -> None:
        """See SinkWriter. Raises UpstreamError when Redis cannot be reached: the job's restart strategy tries again."""
        try:
            for mark, entries in committables:
                self._add(mark, entries)
        except self._redis.exceptions.RedisError as error:
            raise _refused(self._sink.url, error) from error

    def close(self) -> None:
        """See SinkWriter."""
        self._client.close()

    def _add(self, mark: str, entries: list[dict[str, Any]]) -> None:
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.watch(mark)  # two that commit the same do not both add: the second EXEC is refused
            if pipeline.exists(mark):
                return
            pipeline.multi()
            for entry in entries:
                pipeline.xadd(self._sink.stream, entry, maxlen=self._sink.max_length, approximate=True)
            pipeline.set(mark, 1, ex=_MARK_S)
            pipeline.execute()


def _entry(record: Any) -> dict[str, Any]:
    if not isinstance(record, Mapping) or not record:
        raise PipelineError(
            "An entry of a Redis stream is a mapping with at least one field",
            cause=f"got {record!r:.80}",
            hint='make one with map(): .map(lambda x: {"x": x})',
        )
    return {
        str(name): value
        if isinstance(value, _PLAIN) and not isinstance(value, bool)
        else msgspec.json.encode(value).decode()
        for name, value in record.items()
    }


def _redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise PipelineError(
            "Redis Streams need redis-py", cause="it is not installed", hint="pip install 'sage-stack[redis]'"
        ) from error
    return redis


def _client(redis: Any, url: str) -> Any:
    from redis.backoff import NoBackoff
    from redis.retry import Retry as RedisRetry

    never = RedisRetry(NoBackoff(), 0)  # what is tried again, and how, is said here
    try:
        return redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=10, socket_timeout=30, retry=never
        )
    except ValueError as error:
        raise PipelineError(f"{_shown(url)} is no address of Redis", cause=str(error)) from error


def _shown(url: str) -> str:
    """Without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _refused(url: str, error: Exception) -> UpstreamError:
    return UpstreamError(f"{_shown(url)} refused", cause=f"{type(error).__name__}: {error}")
