"""Sources and sinks are plain data: they go to other processes with the graph (SPEC K10)."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pytest

from sage.core.api import LocalEnvironment
from sage.core.connectors.base import Sink, Source
from sage.core.connectors.redis_streams import RedisStreamSink
from sage.core.connectors.sql.sink import SqlSink
from sage.core.graph.source import SourceKind
from sage.core.runtime.operators.sink import SinkOperatorFactory

pytestmark = pytest.mark.spec("K10")


def built() -> LocalEnvironment:
    """Every connector once."""
    env = LocalEnvironment("all")
    streams: list[Any] = [
        env.from_range(3),
        env.from_generator(lambda n: n, 3, rate=5),
        env.from_text("a"),
        env.from_jsonl("a"),
        env.from_csv("a", types={"n": int}),
        env.from_parquet("a"),
        env.from_directory("a", format="csv"),
        env.from_socket("localhost", 1),
        env.from_webhook(1),
        env.from_sse("http://localhost"),
        env.from_sql("a.db", "t", key="id", every="1s"),
        env.from_redis("redis://localhost", "s"),
    ]
    stream = streams[0]
    for stream in streams:
        stream.sink_to(SqlSink("a.db", "t", ("id",)))
    stream.write_text("out")
    stream.write_jsonl("out", exactly_once=True)
    stream.write_csv("out", fields=["a"])
    stream.write_parquet("out")
    stream.sink_to(RedisStreamSink("redis://localhost", "s"))
    return env


def test_connectors_survive_a_pickle_unchanged() -> None:
    connectors: list[Source[Any] | Sink[Any]] = []
    for node in built()._graph.nodes:
        if node.source is not None:
            assert node.source.kind is SourceKind.CONNECTOR
            assert node.source.bounded == node.source.data.bounded
            connectors.append(node.source.data)
        elif isinstance(node.factory, SinkOperatorFactory):
            connectors.append(node.factory.sink)
    assert len(connectors) == 29
    for connector in connectors:
        again = cloudpickle.loads(cloudpickle.dumps(connector))
        assert type(again) is type(connector)
        assert repr(again).split(" at ")[0] == repr(connector).split(" at ")[0]
