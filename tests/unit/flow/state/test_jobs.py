"""State of jobs: every kind from a user's function, on both backends; the backend changed over a savepoint."""

import pathlib
from collections import Counter, defaultdict
from typing import Any

import pytest
from tests.unit.flow.checkpoint.jobs import Project

from sage.common.errors import SageError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.api.function import KeyedProcessFunction
from sage.core.api.state import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from sage.core.runtime import session

pytestmark = pytest.mark.spec("K5", "K6")


class Spread:
    """Largest minus smallest."""

    def create_accumulator(self) -> list[int]:
        return []

    def add(self, value: int, accumulator: list[int]) -> list[int]:
        return [min([*accumulator, value]), max([*accumulator, value])]

    def get_result(self, accumulator: list[int]) -> int:
        return accumulator[1] - accumulator[0]

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        return [min(a[0], b[0]), max(a[1], b[1])]


class Everything(KeyedProcessFunction[str, int, tuple[str, Any]]):
    """Uses each kind of state for the number that comes."""

    def open(self, context: Any) -> None:
        self.count = context.get_state(ValueStateDescriptor("count", default=0))
        self.last = context.get_list_state(ListStateDescriptor("last"))
        self.digits = context.get_map_state(MapStateDescriptor("digits"))
        self.largest = context.get_reducing_state(ReducingStateDescriptor("largest", max))
        self.spread = context.get_aggregating_state(AggregatingStateDescriptor("spread", Spread))

    def process_element(self, value: int, context: Any, out: Any) -> None:
        self.count.update(self.count.value() + 1)
        self.last.add(value)
        self.last.update(self.last.get()[-3:])
        self.digits.put(value % 10, (self.digits.get(value % 10) or 0) + 1)
        self.largest.add(value)
        self.spread.add(value)
        seen = (self.count.value(), self.last.get(), dict(self.digits.items()), self.largest.get(), self.spread.get())
        out.collect((context.get_current_key(), seen))


def expected(numbers: list[int]) -> dict[str, Any]:
    """The last answer for each key."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        by_key[f"key {number % 7}"].append(number)
    return {
        key: (len(own), own[-3:], dict(Counter(n % 10 for n in own)), max(own), max(own) - min(own))
        for key, own in by_key.items()
    }


@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_every_kind_of_state(backend: str, parallelism: int, home: SageHome) -> None:
    numbers = [n * 7919 % 1000 for n in range(3000)]
    found: dict[str, Any] = {}
    with session.use(session.Session(home=home)):
        env = LocalEnvironment("kinds", {"state.backend": backend, "checkpoint.interval": "20ms"})
        stream: Any = env.from_collection(numbers)
        keyed = stream.key_by(lambda n: f"key {n % 7}")
        keyed.process(Everything, parallelism=parallelism).sink(lambda pair: found.update([pair]), parallelism=1)
        env.submit()
    assert found == expected(numbers)
    place = home.checkpoints.parent / "state"
    assert not place.exists() or list(place.iterdir()) == [], "working folders are removed at the end"


@pytest.mark.parametrize(("before", "after"), [("memory", "rocksdb"), ("rocksdb", "memory")])
def test_the_backend_may_change_over_a_savepoint(before: str, after: str, tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path / ".sage")
    project.gate[0] = 2000
    handle = project.start(2, config={"state.backend": before})
    project.until(lambda: len(project.ledger.committed) > 1800)
    place = handle.stop_with_savepoint(timeout=30)
    project.gate[0] = project.numbers
    project.start(3, restore=place, block=True, config={"state.backend": after})
    assert sorted(project.ledger.committed) == project.expected


def test_a_checkpoint_of_rocksdb_does_not_start_in_memory(tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path / ".sage")
    project.start(1, block=True, config={"state.backend": "rocksdb"})
    with pytest.raises(SageError, match="made by the backend rocksdb"):
        project.start(1, restore="latest", block=True)
