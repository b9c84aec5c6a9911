"""The states that functions see: against plain Python values, on every backend, with and without a time to live."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.state_backends import BACKENDS, Store

from sage.common.errors import PipelineError, StateError
from sage.core.api.state import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateTtlConfig,
    StateVisibility,
    TtlUpdate,
    ValueStateDescriptor,
)
from sage.core.state.base import KeyedStateBackend
from sage.core.state.handles import keyed_state, keys_of, operator_list_state
from sage.core.state.operator_state import OperatorState

pytestmark = pytest.mark.spec("K5")


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    store.close()


@pytest.fixture
def backend(store: Store) -> KeyedStateBackend:
    return store.open()


class Mean:
    """The mean of numbers."""

    def create_accumulator(self) -> list[int]:
        return [0, 0]

    def add(self, value: int, accumulator: list[int]) -> list[int]:
        accumulator[0] += value
        accumulator[1] += 1
        return accumulator

    def get_result(self, accumulator: list[int]) -> float:
        return accumulator[0] / accumulator[1]

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        return [a[0] + b[0], a[1] + b[1]]


def test_each_key_has_its_value(backend: KeyedStateBackend) -> None:
    state = keyed_state(backend, ValueStateDescriptor("total", default=0))
    for key, value in [("a", 1), ("b", 5), ("a", 2)]:
        backend.key = key
        state.update(state.value() + value)
    found = {}
    for key in keys_of(backend, ValueStateDescriptor("total", default=0)):
        backend.key = key
        found[key] = state.value()
    assert found == {"a": 3, "b": 5}
    state.clear()
    assert state.value() == 0


def test_a_default_that_can_change_is_given_anew_each_time(backend: KeyedStateBackend) -> None:
    state = keyed_state(backend, ValueStateDescriptor("seen", default=[]))
    backend.key = 1
    state.value().append("lost")
    assert state.value() == []


def test_a_list(backend: KeyedStateBackend) -> None:
    state = keyed_state(backend, ListStateDescriptor("items"))
    backend.key = 1
    assert state.get() == []
    state.add(1)
    state.add_all([2, 3])
    assert list(state) == [1, 2, 3]
    state.get().append("not in the state")
    backend.key = 2
    state.update(["x"])
    assert state.get() == ["x"]
    backend.key = 1
    assert state.get() == [1, 2, 3]
    state.update([])
    assert state.get() == []
    assert list(keys_of(backend, ListStateDescriptor("items"))) == [2]


def test_reducing_and_aggregating(backend: KeyedStateBackend) -> None:
    longest = keyed_state(backend, ReducingStateDescriptor("longest", lambda a, b: max(a, b, key=len)))
    mean = keyed_state(backend, AggregatingStateDescriptor("mean", Mean))
    backend.key = "k"
    assert longest.get() is None
    assert mean.get() is None
    for word in ("a", "ccc", "bb"):
        longest.add(word)
        mean.add(len(word))
    assert longest.get() == "ccc"
    assert mean.get() == 2.0
    mean.clear()
    assert mean.get() is None


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove", "get", "items", "clear", "checkpoint", "restart", "flush"]),
        st.sampled_from(["k1", 2, ("t", 3)]),
        st.sampled_from(["a", 1, 1.5, ("x", 2), b"b", "aa"]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", BACKENDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=operations)
def test_a_map_is_a_dict_for_each_key(kind: str, steps: list[Any]) -> None:
    descriptor: Any = MapStateDescriptor("m")
    with tempfile.TemporaryDirectory() as name:
        store = Store(kind, pathlib.Path(name))
        backend = store.open()
        model: dict[Any, dict[Any, Any]] = {}
        previous = None
        for step, key, entry, value in steps:
            backend.key = key
            state = keyed_state(backend, descriptor)
            entries = model.setdefault(key, {})
            if step == "put":
                state.put(entry, value)
                entries[entry] = value
            elif step == "remove":
                state.remove(entry)
                entries.pop(entry, None)
            elif step == "get":
                assert state.get(entry) == entries.get(entry)
                assert (entry in state) == (entry in entries)
            elif step == "items":
                assert dict(state.items()) == entries
                assert set(state.keys()) == set(entries)
                assert sorted(state.values()) == sorted(entries.values())
                assert state.is_empty() == (not entries)
            elif step == "clear":
                state.clear()
                entries.clear()
            elif step == "flush":
                backend.flush_slice()
            elif step == "checkpoint":
                previous = store.snapshot(backend, previous)[1]
            else:
                saved = store.snapshot(backend, savepoint=value == 0)
                backend, previous = store.open(), None
                backend.restore([saved])
            found = set(keys_of(backend, descriptor))
            assert found == {key for key, entries in model.items() if entries}
        store.close()


def test_a_map_is_whole_while_a_snapshot_is_written(store: Store) -> None:
    backend = store.open()
    state = keyed_state(backend, MapStateDescriptor("m"))
    backend.key = "k"
    state.put_all({"a": 1, "b": 2})
    request = store.request()
    write = backend.snapshot(request)
    assert dict(state.items()) == {"a": 1, "b": 2}
    state.remove("a")
    state.put("c", 3)
    assert dict(state.items()) == {"b": 2, "c": 3}
    snapshot = write()
    for _ in range(5):
        assert dict(state.items()) == {"b": 2, "c": 3}
        backend.flush_slice()
    restored = store.open()
    restored.restore([(request.folder, snapshot)])
    restored.key = "k"
    assert dict(keyed_state(restored, MapStateDescriptor("m")).items()) == {"a": 1, "b": 2}


def ttl(**options: Any) -> StateTtlConfig:
    return StateTtlConfig("1s", **options)


def test_a_value_expires_after_it_was_written(store: Store) -> None:
    backend = store.open()
    state = keyed_state(backend, ValueStateDescriptor("v", default="none", ttl=ttl()))
    backend.key = "k"
    state.update("x")
    store.clock.advance(999)
    assert state.value() == "x"
    store.clock.advance(1)
    assert state.value() == "none"


def test_reading_may_renew(store: Store) -> None:
    backend = store.open()
    state = keyed_state(backend, ValueStateDescriptor("v", ttl=ttl(update=TtlUpdate.ON_READ_AND_WRITE)))
    backend.key = "k"
    state.update("x")
    for _ in range(5):
        store.clock.advance(800)
        assert state.value() == "x"
    store.clock.advance(1000)
    assert state.value() is None


def test_an_expired_value_may_be_seen_until_it_is_removed(store: Store) -> None:
    backend = store.open()
    visible = ttl(visibility=StateVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP)
    state = keyed_state(backend, ValueStateDescriptor("v", ttl=visible))
    backend.key = "k"
    state.update("x")
    store.clock.advance(5000)
    assert state.value() == "x"
    assert state.value() is None


def test_elements_and_entries_live_on_their_own(store: Store) -> None:
    backend = store.open()
    elements = keyed_state(backend, ListStateDescriptor("l", ttl=ttl()))
    entries = keyed_state(backend, MapStateDescriptor("m", ttl=ttl()))
    backend.key = "k"
    elements.add("old")
    entries.put("old", 1)
    store.clock.advance(600)
    elements.add("new")
    entries.put("new", 2)
    store.clock.advance(600)
    assert elements.get() == ["new"]
    assert dict(entries.items()) == {"new": 2}
    assert entries.get("old") is None
    store.clock.advance(600)
    assert elements.get() == []
    assert entries.is_empty()


def test_times_travel_with_a_snapshot(store: Store) -> None:
    descriptor: Any = ValueStateDescriptor("v", ttl=ttl())
    backend = store.open()
    backend.key = "k"
    keyed_state(backend, descriptor).update("x")
    saved = store.snapshot(backend)
    restored = store.open()
    restored.restore([saved])
    restored.key = "k"
    store.clock.advance(900)
    assert keyed_state(restored, descriptor).value() == "x"
    store.clock.advance(100)
    assert keyed_state(restored, descriptor).value() is None


def test_what_nobody_reads_is_swept_away(store: Store) -> None:
    descriptors: list[Any] = [
        ValueStateDescriptor("v", ttl=ttl()),
        ListStateDescriptor("l", ttl=ttl()),
        MapStateDescriptor("m", ttl=ttl()),
        ReducingStateDescriptor("r", max, ttl=ttl()),
    ]
    backend = store.open()
    value, elements, entries, reducing = (keyed_state(backend, descriptor) for descriptor in descriptors)
    for key in range(300):
        backend.key = key
        value.update(key)
        elements.add(key)
        entries.put("a", key)
        reducing.add(key)
    saved = store.snapshot(backend)
    assert saved[1].size > 0
    store.clock.advance(10_000)
    backend.key = "young"
    value.update(1)
    for _ in range(40):
        backend.flush_slice()
        store.clock.advance(20)
    assert [set(keys_of(backend, descriptor)) for descriptor in descriptors] == [{"young"}, set(), set(), set()]


def test_with_and_without_a_time_to_live_do_not_mix(store: Store) -> None:
    backend = store.open()
    backend.key = 1
    keyed_state(backend, ValueStateDescriptor("v")).update(1)
    restored = store.open()
    restored.restore([store.snapshot(backend)])
    with pytest.raises(StateError, match="State 'v' is not what it was"):
        keyed_state(restored, ValueStateDescriptor("v", ttl=ttl()))


@dataclasses.dataclass
class Before:
    x: int


def test_a_fingerprint_knows_kind_type_and_fields() -> None:
    after = dataclasses.make_dataclass("Before", [("x", int), ("y", str)])
    prints = [
        ValueStateDescriptor("s").fingerprint(),
        ListStateDescriptor("s").fingerprint(),
        ValueStateDescriptor("s", type=int).fingerprint(),
        ValueStateDescriptor("s", type=list[int]).fingerprint(),
        ValueStateDescriptor("s", type=Before).fingerprint(),
        ValueStateDescriptor("s", type=after).fingerprint(),
        ValueStateDescriptor("s", ttl=ttl()).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert ValueStateDescriptor("s", default=3).fingerprint() == ValueStateDescriptor("s").fingerprint()


def test_what_is_no_descriptor_is_told_so(backend: KeyedStateBackend) -> None:
    with pytest.raises(PipelineError, match="'total' is no state descriptor"):
        keyed_state(backend, "total")


@pytest.mark.parametrize("value", ["soon", 0, "-1s"])
def test_a_time_to_live_that_is_none(value: Any) -> None:
    with pytest.raises(PipelineError, match="no time to live"):
        StateTtlConfig(value)


def test_the_list_of_a_subtask() -> None:
    state = operator_list_state(OperatorState(), ListStateDescriptor("l"), "union")
    state.add(1)
    state.add_all([2])
    assert list(state) == [1, 2]
    state.update([3])
    assert state.get() == [3]
    state.clear()
    assert state.get() == []
