"""State without keys: how it is dealt out when the parallelism changes."""

import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import StateError
from sage.core.state.base import SnapshotRequest, StateSnapshot
from sage.core.state.operator_state import OperatorState

pytestmark = pytest.mark.spec("K5", "K6")

Saved = list[tuple[pathlib.Path, StateSnapshot]]


def save(states: list[OperatorState], folder: pathlib.Path) -> Saved:
    saved = []
    for number, state in enumerate(states):
        own = folder / f"{len(list(folder.iterdir()))}-{number}"
        own.mkdir()
        saved.append((own, state.snapshot(SnapshotRequest(1, own, folder))()))
    return saved


def restored(saved: Saved, parallelism: int) -> list[OperatorState]:
    states = [OperatorState() for _ in range(parallelism)]
    for subtask, state in enumerate(states):
        state.restore(saved, subtask, parallelism)
    return states


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers() | st.text(), max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_a_list_state_is_dealt_out_evenly(lists: list[list[object]], parallelism: int) -> None:

    with tempfile.TemporaryDirectory() as name:
        states = [OperatorState() for _ in lists]
        for state, values in zip(states, lists, strict=True):
            state.put("positions", values)
        again = restored(save(states, pathlib.Path(name)), parallelism)
    parts = [state.get("positions") for state in again]
    assert [value for part in parts for value in part] == [value for part in lists for value in part]
    if parallelism == len(lists):
        assert parts == lists
    else:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_union_state_is_given_whole_to_all(tmp_path: pathlib.Path) -> None:
    first, second = OperatorState(), OperatorState()
    first.put("splits", [1, 2], "union")
    second.put("splits", [3], "union")
    for state in restored(save([first, second], tmp_path), 3):
        assert state.get("splits", "union") == [1, 2, 3]


def test_a_broadcast_state_is_given_once_to_all(tmp_path: pathlib.Path) -> None:
    states = [OperatorState(), OperatorState()]
    for state in states:
        state.put("rules", [("a", 1)], "broadcast")
    for state in restored(save(states, tmp_path), 3):
        assert state.get("rules", "broadcast") == [("a", 1)]


def test_a_state_that_is_not_asked_for_travels_on(tmp_path: pathlib.Path) -> None:
    state = OperatorState()
    state.put("old", [1])
    [second] = restored(save([state], tmp_path), 1)
    [third] = restored(save([second], tmp_path), 1)
    assert third.get("old") == [1]


def test_another_mode_is_refused(tmp_path: pathlib.Path) -> None:
    state = OperatorState()
    state.put("x", [1])
    with pytest.raises(StateError, match="Operator state 'x' is a list state"):
        state.get("x", "union")
    [again] = restored(save([state], tmp_path), 1)
    with pytest.raises(StateError, match="is a list state"):
        again.get("x", "broadcast")
    with pytest.raises(StateError, match="no kind of operator state"):
        state.get("y", "bag")


def test_what_was_got_is_a_copy() -> None:
    state = OperatorState()
    state.put("x", [1])
    state.get("x").append(2)
    assert state.get("x") == [1]
