"""Every keyed backend against a dict, through snapshots, restores and other parallelisms."""

import copy
import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.helpers.state_backends import BACKENDS, Store

from sage.common.errors import StateError
from sage.core.runtime.partition import key_group
from sage.core.state.base import KeyedStateBackend, StateSnapshot

pytestmark = pytest.mark.spec("K5", "K6")

keys = st.integers(-3, 12) | st.sampled_from(["a", "b", "é", ("t", 1), 2.5, 3.0, True, None, b"b", frozenset({1})])
spaces = st.none() | st.sampled_from([(0, 10), (10, 20), (0, 20), "w"])
values = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=3) | st.tuples(st.integers(), st.text())
names = st.sampled_from(["one", "two"])


class AgainstDict(RuleBasedStateMachine):
    """Several subtasks hold what one dict holds."""

    kind = "memory"

    @initialize()
    def begin(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.store = Store(self.kind, pathlib.Path(self.temporary.name))
        self.model: dict[tuple[str, Any, Any], Any] = {}
        self.backends: list[KeyedStateBackend] = []
        self.previous: list[StateSnapshot | None] = []
        self.start(1)

    def teardown(self) -> None:
        for backend in getattr(self, "backends", []):
            backend.close()
        if hasattr(self, "temporary"):
            self.temporary.cleanup()

    def start(self, parallelism: int, snapshots: list[tuple[pathlib.Path, StateSnapshot]] | None = None) -> None:
        for backend in self.backends:
            backend.close()
        self.backends = [self.store.open(subtask, parallelism) for subtask in range(parallelism)]
        self.previous = [None] * parallelism
        for backend in self.backends:
            if snapshots:
                backend.restore(snapshots)
            for name in ("one", "two"):
                backend.table(name, "any")

    def of(self, key: Any) -> KeyedStateBackend:
        backend = self.backends[key_group(key) * len(self.backends) // 128]
        backend.key = key
        return backend

    @rule(name=names, key=keys, space=spaces, value=values)
    def put(self, name: str, key: Any, space: Any, value: Any) -> None:
        self.of(key).table(name, "any").put(copy.copy(value), space)
        self.model[name, key, space] = value

    @rule(name=names, key=keys, space=spaces)
    def get(self, name: str, key: Any, space: Any) -> None:
        assert self.of(key).table(name, "any").get(space) == self.model.get((name, key, space))

    @rule(name=names, key=keys, space=spaces)
    def clear(self, name: str, key: Any, space: Any) -> None:
        self.of(key).table(name, "any").clear(space)
        self.model.pop((name, key, space), None)

    @rule(name=names, key=keys, space=spaces)
    def change_in_place(self, name: str, key: Any, space: Any) -> None:
        table = self.of(key).table(name, "any")
        value = table.get(space)
        if isinstance(value, list):
            value.append(7)
            table.put(value, space)
            self.model[name, key, space] = list(value)

    @rule(name=names, key=keys, into=spaces, sources=st.lists(spaces, max_size=3, unique=True))
    def merge(self, name: str, key: Any, into: Any, sources: list[Any]) -> None:
        def combine(left: Any, right: Any) -> Any:
            return f"{left}+{right}"

        self.of(key).table(name, "any").merge(into, sources, combine)
        merged = self.model.pop((name, key, into), None)
        for source in sources:
            value = self.model.pop((name, key, source), None) if source != into else None
            if value is not None:
                merged = value if merged is None else combine(merged, value)
        if merged is not None:
            self.model[name, key, into] = merged

    @rule()
    def flush(self) -> None:
        for backend in self.backends:
            backend.flush_slice()

    @rule()
    def checkpoint(self) -> None:
        for subtask, backend in enumerate(self.backends):
            self.previous[subtask] = self.store.snapshot(backend, self.previous[subtask])[1]

    @rule(parallelism=st.sampled_from([1, 2, 4, 7]), savepoint=st.booleans(), late=st.booleans())
    def restart(self, parallelism: int, savepoint: bool, late: bool) -> None:
        pending = []
        for backend, previous in zip(self.backends, self.previous, strict=True):
            request = self.store.request(previous, savepoint=savepoint)
            pending.append((request.folder, backend.snapshot(request)))
        if late:
            self.disturb()
        self.start(parallelism, [(folder, write()) for folder, write in pending])

    def disturb(self) -> None:
        """What happens between a barrier and the writing of its snapshot must not get into it."""
        for name, key, space in list(self.model):
            table = self.of(key).table(name, "any")
            value = table.get(space)
            if isinstance(value, list):
                value.append("after the barrier")
                table.put(value, space)
            else:
                table.clear(space)
        for backend in self.backends:
            backend.key = next(
                key for key in range(1000) if backend is self.backends[key_group(key) * len(self.backends) // 128]
            )
            backend.table("one", "any").put("after the barrier")

    @invariant()
    def keys_are_the_models(self) -> None:
        for name in ("one", "two"):
            for space in (None, (0, 10)):
                found = [key for backend in self.backends for key in backend.table(name, "any").keys(space)]
                assert len(found) == len(set(found))
                assert set(found) == {k for n, k, s in self.model if n == name and s == space}


def compare(kind: str, examples: int) -> None:
    machine = type("Machine", (AgainstDict,), {"kind": kind})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=checks),
    )


@pytest.mark.parametrize(("kind", "examples"), [("memory", 25), ("rocksdb", 8)])
def test_a_backend_is_a_dict_that_can_be_snapshot(kind: str, examples: int) -> None:
    compare(kind, examples)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_is_a_dict_in_many_more_ways(kind: str) -> None:
    compare(kind, 30)


@pytest.mark.parametrize("kind", BACKENDS)
def test_rescaling_keeps_the_state_of_every_key(kind: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    expected = {key: f"value {key}" for key in range(500)} | {f"k{key}": key for key in range(500)}
    backends = [store.open()]
    for key, value in expected.items():
        backends[0].key = key
        backends[0].table("t", "s").put(value)
    for parallelism in (4, 2, 7):
        snapshots = [store.snapshot(backend, savepoint=True) for backend in backends]
        for backend in backends:
            backend.close()
        backends = [store.open(subtask, parallelism) for subtask in range(parallelism)]
        for backend in backends:
            backend.restore(snapshots)
    found = {}
    for backend in backends:
        table = backend.table("t", "s")
        for key in list(table.keys()):
            backend.key = key
            assert key not in found
            found[key] = table.get()
        backend.close()
    assert found == expected


@pytest.mark.parametrize("kind", BACKENDS)
def test_what_was_removed_does_not_come_back_from_another_subtasks_part(kind: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    backends = [store.open()]
    for key in range(300):
        backends[0].key = key
        backends[0].table("t", "s").put(key)
    for parallelism in (4, 2):
        snapshots = [store.snapshot(backend) for backend in backends]
        backends = [store.open(subtask, parallelism) for subtask in range(parallelism)]
        for backend in backends:
            backend.restore(snapshots)
        if parallelism == 4:
            for backend in backends:
                for key in list(backend.table("t", "s").keys()):
                    backend.key = key
                    if key % 3:
                        backend.table("t", "s").clear()
    found = [key for backend in backends for key in list(backend.table("t", "s").keys())]
    assert sorted(found) == list(range(0, 300, 3))
    store.close()


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("value", [[1], {"a": [1]}, ([1], 2)], ids=repr)
def test_a_value_changed_in_place_after_the_barrier_is_not_in_its_snapshot(
    kind: str, value: Any, tmp_path: pathlib.Path
) -> None:
    store = Store(kind, tmp_path)
    backend = store.open()
    table = backend.table("t", "s")
    backend.key = "k"
    table.put(copy.deepcopy(value))
    table.put(copy.deepcopy(value), (0, 10))
    request = store.request()
    write = backend.snapshot(request)
    for space in (None, (0, 10)):
        held = table.get(space)
        inner = held if isinstance(held, list) else held["a"] if isinstance(held, dict) else held[0]
        inner.append("later")
        table.put(held, space)
        assert table.get(space) == held
    snapshot = write()
    restored = store.open()
    restored.restore([(request.folder, snapshot)])
    restored.key = "k"
    assert restored.table("t", "s").get() == value
    assert restored.table("t", "s").get((0, 10)) == value
    assert table.get() != value
    store.close()


class Calls:
    """Raw state whose dump lets a test act in the middle of a snapshot."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def dump(self) -> Iterable[tuple[int, bytes]]:
        self.act()
        return []

    def load(self, parts: Iterable[tuple[int, bytes]]) -> None:
        raise AssertionError("nothing was dumped")


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_snapshot_that_ends_while_the_next_begins_does_not_thaw_it(kind: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    backend = store.open()
    table = backend.table("t", "s")
    calls = Calls(lambda: None)
    backend.raw("calls", calls)
    backend.key = "k"
    table.put([1])
    calls.act = backend.snapshot(store.request())  # of a checkpoint that was aborted: its writer is still at it
    request = store.request()
    write = backend.snapshot(request)
    table.get().append("later")
    snapshot = write()
    restored = store.open()
    restored.restore([(request.folder, snapshot)])
    restored.key = "k"
    assert restored.table("t", "s").get() == [1]
    store.close()


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_changed_schema_is_refused_by_name(kind: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    backend = store.open()
    backend.key = 1
    backend.table("count", "value:int").put(3)
    snapshot = store.snapshot(backend)
    restored = store.open()
    restored.restore([snapshot])
    with pytest.raises(StateError, match="State 'count' is not what it was") as caught:
        restored.table("count", "list")
    assert "value:int" in caught.value.cause
    assert "list" in caught.value.cause
    restored.close()
    backend.close()


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("savepoint", [False, True])
def test_a_state_that_is_not_declared_any_more_travels_on(kind: str, savepoint: bool, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    first = store.open()
    first.key = "k"
    first.table("old", "v").put([1, 2])
    second = store.open()
    second.restore([store.snapshot(first)])
    second.table("new", "v")
    third = store.open()
    third.restore([store.snapshot(second, savepoint=savepoint)])
    third.key = "k"
    assert third.table("old", "v").get() == [1, 2]
    for backend in (first, second, third):
        backend.close()


class Timers:
    """A raw state: the numbers of each group."""

    def __init__(self, numbers: dict[int, bytes] | None = None) -> None:
        self.numbers = numbers or {}

    def dump(self) -> list[tuple[int, bytes]]:
        return list(self.numbers.items())

    def load(self, parts: Any) -> None:
        self.numbers.update(parts)


@pytest.mark.parametrize("kind", BACKENDS)
def test_raw_state_moves_with_its_groups(kind: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    backend = store.open()
    backend.raw("timers", Timers({group: b"%d" % group for group in range(128)}))
    snapshot = store.snapshot(backend)
    backend.close()
    for subtask in range(3):
        timers = Timers()
        restored = store.open(subtask, 3)
        restored.restore([snapshot])
        restored.raw("timers", timers)
        assert set(timers.numbers) == {group for group in range(128) if group * 3 // 128 == subtask}
        assert all(value == b"%d" % group for group, value in timers.numbers.items())
        restored.close()


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_a_damaged_file_is_named(kind: str, damage: str, tmp_path: pathlib.Path) -> None:
    store = Store(kind, tmp_path)
    backend = store.open()
    for key in range(2000):
        backend.key = key
        backend.table("t", "s").put("value" * 5)
    folder, snapshot = store.snapshot(backend)
    backend.close()
    file = max((folder / name for name in snapshot.files), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        half = len(content) // 2
        file.unlink()
        flipped = content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]
        file.write_bytes({"cut": content[:half], "flip": flipped, "empty": b""}[damage])
    restored = store.open()
    try:
        with pytest.raises(StateError) as caught:
            read_all(restored, folder, snapshot)
        assert file.name in f"{caught.value.title} {caught.value.cause}"
    finally:
        restored.close()


def read_all(backend: KeyedStateBackend, folder: pathlib.Path, snapshot: StateSnapshot) -> None:
    backend.restore([(folder, snapshot)])
    list(backend.table("t", "s").keys())
