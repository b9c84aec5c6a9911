"""The checkpoint coordinator, with a clock moved by hand (SPEC K6; Flink's CheckpointCoordinator)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.checkpoint.harness import SUBTASKS, World

from sage.common.errors import PipelineError, StateError
from sage.core.checkpoint.storage import read_manifest
from sage.core.runtime.events import Barrier, CheckpointKind
from sage.core.runtime.settings import CheckpointMode

pytestmark = pytest.mark.spec("K6")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_checkpoint_begins_when_the_interval_has_passed(world: World) -> None:
    assert world.after(0) == 10.0
    assert world.after(9.5) == 0.5
    assert world.target.triggered == []
    world.after(0.5)
    assert [barrier.checkpoint_id for barrier in world.target.triggered] == [1]


def test_it_is_complete_when_every_subtask_has_answered(world: World) -> None:
    world.after(10)
    for subtask in sorted(SUBTASKS)[:-1]:
        world.acknowledge(1, subtask)
    world.after(1)
    assert world.target.complete == []
    assert world.storage.completed() == []
    assert world.coordinator.waits_for == [(1, 1)]
    world.acknowledge(1, (1, 1))
    world.after(1)
    assert world.target.complete == [1]
    assert world.storage.completed() == [1]
    manifest = read_manifest(world.storage.root / "chk-1")
    assert {key: len(entry.subtasks) for key, entry in manifest.operators.items()} == {"a": 1, "b": 2}
    assert (manifest.written, manifest.size, manifest.finished) == (30, 30, False)
    stats = world.coordinator.history[0]
    assert (stats.state, stats.duration, stats.sync) == ("completed", 2.0, 0.01)


def test_answers_wake_the_jobs_thread(world: World) -> None:
    world.after(10)
    before = world.woken
    world.acknowledge(1, (0, 0))
    assert world.woken == before + 1


def test_the_same_answer_twice_counts_once(world: World) -> None:
    world.after(10)
    for _ in range(3):
        world.acknowledge(1, (0, 0))
    world.after(0)
    assert world.coordinator.waits_for == [(1, 0), (1, 1)]


def test_one_that_takes_too_long_is_aborted_and_says_what_it_waited_for(world: World) -> None:
    world.after(10)
    world.acknowledge(1, (0, 0))
    assert world.after(59) == 1.0
    world.after(1)
    assert world.target.abandoned == [1]
    assert "2 of 3 subtasks" in world.coordinator.history[0].error
    assert "1.0, 1.1" in world.coordinator.history[0].error
    assert not (world.storage.root / "chk-1").exists()
    assert [barrier.checkpoint_id for barrier in world.target.triggered] == [1, 2]  # it was due long since


def test_answers_of_an_aborted_checkpoint_are_ignored(world: World) -> None:
    world.after(10)
    world.after(60)
    assert world.coordinator.waits_for == sorted(SUBTASKS)
    world.acknowledge_all(1)
    world.after(0)
    assert world.target.complete == []


def test_a_declined_checkpoint_fails_at_once(world: World) -> None:
    world.after(10)
    world.coordinator.decline(Barrier(1), 1, 0, OSError(28, "No space left on device"))
    world.after(0)
    assert world.target.abandoned == [1]
    assert "No space left on device" in world.coordinator.history[0].error


def test_too_many_failures_in_a_row_are_the_jobs(tmp_path: Path) -> None:
    world = World(tmp_path, tolerable_failures=2)
    for number in (1, 2):
        world.after(10)
        world.coordinator.decline(Barrier(number), 0, 0, OSError("full"))
        world.after(0)
    world.after(10)
    world.acknowledge_all(3)
    world.after(0)  # one that completes forgives
    for number in (4, 5):
        world.after(10)
        world.coordinator.decline(Barrier(number), 0, 0, OSError("full"))
        world.after(0)
    world.after(10)
    world.coordinator.decline(Barrier(6), 0, 0, OSError("full"))
    with pytest.raises(PipelineError, match="3 checkpoints of 'job' failed in a row"):
        world.after(0)


def test_a_pause_lies_between_two_checkpoints(tmp_path: Path) -> None:
    world = World(tmp_path, min_pause=4.0)
    world.after(10)
    world.clock.now += 9.0
    world.acknowledge_all(1)
    assert world.coordinator.step() == 4.0
    world.after(3.9)
    assert len(world.target.triggered) == 1
    world.after(0.1)
    assert len(world.target.triggered) == 2


def test_old_checkpoints_go_away(tmp_path: Path) -> None:
    world = World(tmp_path, retained=2)
    for number in range(1, 6):
        world.after(10)
        world.acknowledge_all(number)
        world.after(0)
    assert world.storage.completed() == [4, 5]


def test_a_savepoint_is_made_at_once_and_stays(tmp_path: Path) -> None:
    world = World(tmp_path, retained=1)
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    world.acknowledge_all(1)
    world.after(0)
    assert answer.result(0) == tmp_path / "sp-1"
    assert world.target.complete == []  # it commits nothing: a recovery goes back to the checkpoint before
    for number in (2, 3):
        world.after(10)
        world.acknowledge_all(number)
        world.after(0)
    assert world.storage.completed() == [3]
    assert (tmp_path / "sp-1" / "manifest.json").exists()


def test_a_savepoint_at_a_place_of_the_users(tmp_path: Path) -> None:
    world = World(tmp_path / "job")
    place = tmp_path / "mine" / "before-upgrade"
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT, place)
    world.after(0)
    world.acknowledge_all(1)
    world.after(0)
    assert answer.result(0) == place
    assert read_manifest(place).kind == "savepoint"
    again = world.coordinator.savepoint(CheckpointKind.SAVEPOINT, place)
    world.after(0)
    with pytest.raises(StateError, match="There is a savepoint"):
        again.result(0)


def test_a_savepoint_waits_for_the_checkpoint_under_way(world: World) -> None:
    world.after(10)
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    assert len(world.target.triggered) == 1
    world.acknowledge_all(1)
    world.after(0)
    assert world.target.triggered[-1].kind is CheckpointKind.SAVEPOINT
    world.acknowledge_all(2)
    world.after(0)
    assert answer.done()


def test_a_failed_savepoint_is_its_askers_not_the_jobs(tmp_path: Path) -> None:
    world = World(tmp_path, tolerable_failures=0)
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    world.coordinator.decline(Barrier(1), 0, 0, OSError("full"))
    world.after(0)
    with pytest.raises(StateError, match="full"):
        answer.result(0)


def test_savepoints_without_periodic_checkpoints(tmp_path: Path) -> None:
    world = World(tmp_path, mode=CheckpointMode.NONE, interval=None)
    assert world.after(1e6) is None
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    world.acknowledge_all(1)
    world.after(0)
    assert answer.done()


def test_the_last_checkpoint_is_made_when_all_input_has_ended(world: World) -> None:
    for task, subtask in SUBTASKS:
        world.coordinator.input_ended(task, subtask)
    world.after(1)
    before = world.coordinator.is_final
    world.acknowledge_all(1, finished=True)
    world.after(0)
    assert (before, world.coordinator.is_final) == (False, True)
    assert read_manifest(world.storage.root / "chk-1").finished
    assert world.after(100) is None
    assert len(world.target.triggered) == 1


def test_a_checkpoint_from_before_the_end_is_not_the_last(world: World) -> None:
    world.after(10)
    world.acknowledge(1, (0, 0))
    for task, subtask in SUBTASKS:
        world.coordinator.input_ended(task, subtask)
    world.acknowledge(1, (1, 0), finished=True)
    world.acknowledge(1, (1, 1), finished=True)
    world.after(0)
    assert world.target.complete == [1]
    assert not world.coordinator.is_final
    assert [barrier.checkpoint_id for barrier in world.target.triggered] == [1, 2]


def test_the_last_checkpoint_is_tried_again_but_not_in_a_hurry(tmp_path: Path) -> None:
    world = World(tmp_path, tolerable_failures=1)
    for task, subtask in SUBTASKS:
        world.coordinator.input_ended(task, subtask)
    world.after(0)
    world.coordinator.decline(Barrier(1), 0, 0, OSError("full"))
    assert world.after(0) == 0.5
    assert len(world.target.triggered) == 1
    world.after(0.5)
    world.coordinator.decline(Barrier(2), 0, 0, OSError("full"))
    with pytest.raises(PipelineError, match="in a row"):
        world.after(0)


def test_stopping_with_a_savepoint_is_the_end(world: World) -> None:
    answer = world.coordinator.savepoint(CheckpointKind.STOP_WITH_SAVEPOINT)
    world.after(0)
    world.acknowledge_all(1)
    late = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    assert answer.done()
    assert world.coordinator.is_final
    with pytest.raises(PipelineError, match="has ended"):
        late.result(0)


def test_no_savepoint_of_half_a_job(tmp_path: Path) -> None:
    """Without periodic checkpoints tasks that have come to their end are gone."""
    world = World(tmp_path, mode=CheckpointMode.NONE, interval=None)
    world.coordinator.input_ended(0, 0)
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    with pytest.raises(PipelineError, match="or a part of it"):
        answer.result(0)


def test_a_savepoint_that_is_asked_for_too_late_is_refused(world: World) -> None:
    world.coordinator.close(PipelineError("over"))
    with pytest.raises(PipelineError, match="has ended"):
        world.coordinator.savepoint(CheckpointKind.SAVEPOINT).result(0)


def test_what_is_under_way_fails_with_the_attempt(world: World) -> None:
    world.after(10)
    answer = world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.coordinator.close(PipelineError("the map raised"))
    with pytest.raises(PipelineError, match="the map raised"):
        answer.result(0)
    assert world.coordinator.history[0].state == "failed"
    assert not (world.storage.root / "chk-1").exists()


def test_unaligned_from_the_start_but_never_for_savepoints(tmp_path: Path) -> None:
    world = World(tmp_path, alignment_timeout=0.0)
    world.after(10)
    assert world.target.triggered[0].unaligned
    world.acknowledge_all(1)
    world.coordinator.savepoint(CheckpointKind.SAVEPOINT)
    world.after(0)
    assert not world.target.triggered[1].unaligned


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(5, 80), retained=st.integers(1, 3))
def test_whatever_happens_what_is_told_complete_is_on_disk(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int, retained: int
) -> None:
    """Random answers, refusals, time and savepoints: ids grow, one at a time, complete means readable."""
    chance = random.Random(seed)
    world = World(tmp_path_factory.mktemp("world"), retained=retained, tolerable_failures=10**6)
    savepoints = []
    for _ in range(steps):
        started = [barrier.checkpoint_id for barrier in world.target.triggered]
        under_way = [stats for stats in world.coordinator.history if stats.state == "in_progress"]
        assert started == sorted(set(started))
        assert len(under_way) <= 1
        choice = chance.random()
        if choice < 0.6 and started:
            world.acknowledge(chance.choice(started[-2:]), chance.choice(sorted(SUBTASKS)))
        elif choice < 0.7 and started:
            world.coordinator.decline(Barrier(chance.choice(started[-2:])), 0, 0, OSError("x"))
        elif choice < 0.8:
            savepoints.append(world.coordinator.savepoint(CheckpointKind.SAVEPOINT))
        due = world.after(chance.choice([0.0, 0.1, 3.0, 10.0, 70.0]))
        assert due is not None
        assert due >= 0
    for number in world.storage.completed():
        assert read_manifest(world.storage.root / f"chk-{number}").checkpoint_id == number
        assert number in world.target.complete
    assert len(world.storage.completed()) <= retained
    assert set(world.target.complete).isdisjoint(world.target.abandoned)
    world.coordinator.close(PipelineError("over"))
    assert all(answer.done() for answer in savepoints)
    for answer in savepoints:
        if answer.exception() is None:
            assert read_manifest(answer.result()).kind == "savepoint"
