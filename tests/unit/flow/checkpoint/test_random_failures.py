"""Jobs of random shape and configuration that fail at random records: every record counts once (SPEC K6, R2)."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.faults.flow.exactly_once_job import KEYS, Numbers, count
from tests.unit.flow.checkpoint.jobs import Ledger

from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import TumblingEventTimeWindows
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.runtime import session
from sage.core.runtime.operators.sink import SinkOperatorFactory

pytestmark = [pytest.mark.spec("K6", "R2"), pytest.mark.slow]

NUMBERS = 3000


class Fails:
    """Raises at chosen calls, counted over everything that calls it."""

    def __init__(self, calls: set[int]) -> None:
        self._calls = calls
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, record: Any) -> Any:
        with self._lock:
            self._count += 1
            if self._count in self._calls:
                raise RuntimeError(f"failed at {self._count}")
        return record


def configuration(chance: random.Random) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "checkpoint.interval": chance.choice([1, 5, 20]),
        "checkpoint.unaligned": chance.random() < 0.4,
        "chaining": chance.random() < 0.6,
        "channel.capacity": chance.choice([1, 2, 4]),
        "buffer.size": chance.choice([1, 7, 64, 1024]),
        "buffer.timeout": chance.choice([0, 1, 10]),
        "state.backend": chance.choice(["memory", "memory", "rocksdb"]),
        "restart.attempts": 100,
        "restart.delay": 0,
    }
    if chance.random() < 0.3:
        chosen["checkpoint.alignment_timeout"] = 2
    return chosen


def pipeline(env: LocalEnvironment, shape: str, chance: random.Random, fails: Fails, ledger: Ledger) -> None:
    """Ends with (key, count) pairs of all numbers, whatever the shape."""

    def numbers(parts: int, name: str) -> Any:
        spec = SourceSpec(SourceKind.CONNECTOR, True, Numbers(NUMBERS, parts, 0.0005))
        return env._source(spec, name, chance.randint(1, 3), Origin.of_caller())

    def some() -> int:
        return chance.randint(1, 3)

    stream = numbers(6, "numbers")
    if shape == "windows":
        strategy: Any = WatermarkStrategy.for_bounded_out_of_orderness("1h").with_timestamp_assigner(lambda n: n)
        stream = stream.assign_timestamps_and_watermarks(strategy)
    if shape == "union":
        stream = stream.filter(lambda n: n % 2 == 0).union(numbers(4, "again").filter(lambda n: n % 2 == 1))
    pairs = stream.map(lambda n: (n % KEYS, 1), parallelism=some())
    if shape == "two keys":
        pairs = pairs.key_by(lambda pair: pair[0] % 7).map(fails, parallelism=some())
    keyed = pairs.map(fails, parallelism=some()).key_by(lambda pair: pair[0])
    if shape == "windows":
        keyed = keyed.window(TumblingEventTimeWindows.of("1d"))
    counts = keyed.reduce(count, parallelism=some())
    factory: Any = SinkOperatorFactory(ledger)
    counts.map(fails, parallelism=some())._operator_sink("ledger", factory, parallelism=some())


def expected(shape: str) -> list[tuple[int, int]]:
    every = sorted((key, n // KEYS + 1) for n in range(NUMBERS) for key in (n % KEYS,))
    return sorted(dict(every).items()) if shape == "windows" else every


def run(seed: int, folder: Path) -> None:
    chance = random.Random(seed)
    shape = chance.choice(["rolling", "windows", "union", "two keys"])
    fails = Fails({chance.randint(1, 4 * NUMBERS) for _ in range(chance.randint(1, 4))})
    ledger = Ledger()
    with session.use(session.Session(home=SageHome(folder))):
        env = LocalEnvironment("random", configuration(chance) | {"parallelism": chance.randint(1, 3)})
        pipeline(env, shape, chance, fails, ledger)
        env.submit()
    assert sorted(ledger.committed) == expected(shape), f"seed {seed}, {shape}"


@pytest.mark.parametrize("seed", range(4))
def test_a_random_job(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_many_random_jobs(tmp_path: Path) -> None:
    for seed in range(100, 125):
        run(seed, tmp_path / str(seed))
