"""Quix Streams without Kafka: its composed dataframe is called for each record, over its real RocksDB stores.

That leaves out brokers, serialisation and commits of offsets, all to its advantage.
"""

from __future__ import annotations

import contextvars
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import wire
import workload
from quixstreams.context import set_message_context
from quixstreams.dataframe import DataFrameRegistry, StreamingDataFrame
from quixstreams.models import MessageContext, Topic, TopicConfig, TopicManager
from quixstreams.state import StateStoreManager

SETTINGS = TopicConfig(num_partitions=1, replication_factor=1, extra_config={"retention.ms": "-1"})


class Checkpoint:
    """The open transaction of each store, as Quix's checkpoint holds them; written at the end."""

    def __init__(self, stores: StateStoreManager) -> None:
        self._stores = stores
        self._open: dict[str, Any] = {}

    def get_store_transaction(self, stream_id, partition, store_name="default"):
        found = self._open.get(store_name)
        if found is None:
            store = self._stores.get_store(stream_id, store_name)
            found = self._open[store_name] = store.start_partition_transaction(partition)
        return found

    def flush(self) -> None:
        for transaction in self._open.values():
            transaction.prepare(processed_offsets={"in": 1})
            transaction.flush()


class QuixStreams:
    """One dataframe a run."""

    def prepare(self, row: str, records: int) -> None:
        self._data = workload.data_of(row, records)

    def run(self, row: str, how: str = "", mode: str = "") -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(prefix="bench-quix-"))
        stores = StateStoreManager(group_id="bench", state_dir=folder)
        checkpoint = Checkpoint(stores)
        around = SimpleNamespace(producer=None, state_manager=stores, checkpoint=checkpoint)
        topic = Topic("in", create_config=SETTINGS)
        topic.broker_config = SETTINGS
        registry = DataFrameRegistry()
        frame = StreamingDataFrame(
            topic, topic_manager=TopicManager, registry=registry, processing_context=around, stream_id="in"
        )
        registry.register_root(frame)
        frame = getattr(self, f"_{row}")(frame)
        stores.on_partition_assign(stream_id="in", partition=0, committed_offsets={"in": -1001})
        out: list[Any] = []
        inside = contextvars.copy_context()
        inside.run(set_message_context, MessageContext("in", 0, 1, 1))
        call = frame.compose(sink=lambda value, key, timestamp, headers: out.append((key, value)))["in"]
        wall, cpu = time.perf_counter(), time.process_time()
        inside.run(self._feed, row, call)
        checkpoint.flush()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        stores.on_partition_revoke(stream_id="in", partition=0)
        shutil.rmtree(folder, ignore_errors=True)
        return self._checked(row, out) | {"wall": wall, "cpu": cpu}

    def _feed(self, row: str, call: Any) -> None:
        if row == "a":
            for x in self._data:
                call(x, b"key", 0, None)
        elif row == "b":
            for key in self._data:
                call(key, key, 0, None)
        else:
            for key, ms in self._data:
                call(key, key, ms, None)

    def _a(self, frame):
        return frame.apply(lambda x: x * 2).filter(lambda y: y % 3 != 0).apply(lambda y: y + 1)

    def _b(self, frame):
        def count(value, state):
            number = state.get("n", 0) + 1
            state.set("n", number)
            return number

        return frame.apply(count, stateful=True)

    def _c(self, frame):
        return frame.tumbling_window(workload.WINDOW, grace_ms=workload.LATE).count().final()

    def _checked(self, row: str, out: list[Any]) -> dict[str, Any]:
        if row == "a":
            workload.check_a(len(self._data), [value for _, value in out])
        elif row == "b":
            workload.check_b(self._data, out)
        else:  # windows that no later record closes stay open: they are left out of what is counted as lost
            found = [(key, value["start"], value["value"]) for key, value in out]
            return {"lost": workload.lost(self._data, found)}
        return {}


if __name__ == "__main__":
    wire.serve(QuixStreams())
