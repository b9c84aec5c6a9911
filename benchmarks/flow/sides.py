"""Who takes part in rows a, b and c, with how many records: as many as keep a run at about a second.

Input comes in batches of 1,024, which is our default (`buffer.size`), unless a side says another number. Larger ones
make bytewax quicker, and ours not.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.environments import OURS

CHECKPOINTED = "memory, checkpoints"
ROCKSDB = "rocksdb, checkpoints"
RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Side:
    """One competitor in one row. `how` and `mode` are what its script understands; `note` is for the report."""

    row: str
    name: str
    environment: str
    script: str
    records: int
    how: str = ""
    mode: str = ""
    note: str = ""
    rounds: int = 5

    @property
    def ours(self) -> bool:
        return self.script == "ours"


def _ours(row: str, name: str, records: int, how: str, mode: str = "memory", note: str = "") -> Side:
    return Side(row, name, OURS, "ours", records, how, mode, note)


def _peer(row: str, name: str, records: int, how: str = "", mode: str = "", note: str = "", rounds: int = 3) -> Side:
    environment, script = f"flow-{name.split(',')[0].lower()}", f"with_{name.split(',')[0].lower()}"
    return Side(row, name, environment, script, records, how, mode, note, rounds)


_COMMITS = "puts out a change for each of its commits, not for each record"
_NO_KAFKA = "its functions called in process, no Kafka"
_OPEN = "its last windows stay open without new records"
M, K = 1_000_000, 1_000

SIDES = (
    _ours("a", "ours", M, "lambdas"),
    Side("a", "plain loop", OURS, "plain", M, note="calls the same lambdas"),
    _peer("a", "bytewax", M, rounds=5),
    _peer("a", "bytewax, recovery", M, mode=RECOVERY, rounds=5),
    _peer("a", "pathway", 200 * K),
    _peer("a", "quixstreams", 200 * K, note=_NO_KAFKA),
    _peer("a", "streamz", 100 * K),
    _peer("a", "PyFlink", 200 * K, rounds=2),
    _ours("b", "ours, ValueState", M, "process", note="KeyedProcessFunction"),
    _ours("b", "ours, reduce", M, "reduce"),
    _ours("b", "ours, count()", M, "count"),
    _ours(
        "b", "ours, RocksDB, checkpoints", 4 * M, "process", ROCKSDB, "KeyedProcessFunction, exactly once, every 1 s"
    ),
    Side("b", "plain loop", OURS, "plain", M, note="a dict"),
    _peer("b", "bytewax", 500 * K, rounds=5),
    _peer("b", "bytewax, recovery", 1 * M, mode=RECOVERY),
    _peer("b", "bytewax, large batches", M, "65536", note="65,536 a batch"),
    _peer("b", "pathway", 200 * K, note=_COMMITS),
    _peer("b", "quixstreams", 100 * K, note=_NO_KAFKA),
    _peer("b", "streamz", 100 * K),
    _peer("b", "PyFlink", 50 * K, "process", note="KeyedProcessFunction", rounds=2),
    _peer("b", "PyFlink, reduce", 50 * K, "reduce", rounds=2),
    _ours("c", "ours, aggregate", 3 * M, "aggregate", CHECKPOINTED, "exactly once, every 1 s"),
    _ours("c", "ours, count()", 3 * M, "count", CHECKPOINTED, "exactly once, every 1 s"),
    _peer("c", "bytewax", 200 * K),
    _peer("c", "bytewax, large batches", 400 * K, "65536", note="65,536 a batch"),
    _peer("c", "bytewax, recovery", 200 * K, mode=RECOVERY),
    _peer("c", "pathway", 200 * K),
    _peer("c", "quixstreams", 50 * K, note=f"{_NO_KAFKA}; {_OPEN}"),
    _peer("c", "PyFlink", 30 * K, rounds=2),
)
TITLES = {
    "a": "a: map → filter → map over ints",
    "b": "b: count by key, 10,000 keys by Zipf's law, every update put out",
    "c": "c: count by key in tumbling event-time windows of 10 s, events up to 2 s out of order",
}
