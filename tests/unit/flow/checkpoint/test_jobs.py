"""Jobs with checkpoints: restarts, savepoints, stopping, restoring, rescaling, what goes wrong (SPEC K6)."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flow.checkpoint.jobs import Ledger, Project, Record

from sage.common.errors import PipelineError, StateError
from sage.core.api import LocalEnvironment
from sage.core.api.job_handle import JobHandle
from sage.core.checkpoint.job_folder import JobFolder, identity
from sage.core.checkpoint.storage import read_manifest
from sage.core.runtime import session
from sage.core.runtime.operators.sink import SinkOperatorFactory

pytestmark = pytest.mark.spec("K6")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / ".sage")


BACKENDS = [pytest.param({}, id="memory"), pytest.param({"state.backend": "rocksdb"}, id="rocksdb")]


def completed(handle: JobHandle) -> int:
    return sum(1 for stats in handle.checkpoints() if stats.state == "completed")


class FailsAt:
    """A map that raises at the given calls, counted over all subtasks and attempts."""

    def __init__(self, *calls: int) -> None:
        self._calls = set(calls)
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, record: Record) -> Record:
        with self._lock:
            self._count += 1
            if self._count in self._calls:
                raise RuntimeError(f"failed at {self._count}")
        return record


def test_an_undisturbed_job_commits_everything_and_ends_with_a_checkpoint(project: Project) -> None:
    handle = project.start(2, block=True)
    assert sorted(project.ledger.committed) == project.expected
    assert project.ledger.prepared == {}
    last = read_manifest(Path(handle.checkpoints()[-1].path))
    assert last.finished
    assert handle.status() == "finished"


def test_without_checkpoints_a_transactional_sink_commits_at_the_end(project: Project) -> None:
    handle = project.start(2, block=True, config={"checkpointing": "none"})
    assert sorted(project.ledger.committed) == project.expected
    assert handle.checkpoints() == []
    assert list(project.home.checkpoints.iterdir()) == []


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("config", [*BACKENDS, pytest.param({"checkpoint.unaligned": True}, id="unaligned")])
def test_a_restarted_job_counts_every_record_once(
    project: Project, parallelism: int, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    project.pause = 0.004
    project.config = {"restart.strategy": "fixed-delay", "restart.delay": 1} | config
    handle = project.start(parallelism, step=FailsAt(700, 2100, 4000), block=True)
    assert sorted(project.ledger.committed) == project.expected
    assert handle.restarts == 3
    said = capsys.readouterr().err
    assert "failed at 700" in said
    assert "starts again from checkpoint" in said


def test_at_least_once_loses_nothing(project: Project) -> None:
    project.config = {"restart.strategy": "fixed-delay", "restart.delay": 1, "checkpointing": "at_least_once"}
    project.start(3, step=FailsAt(1500), block=True)
    assert {key for key, _ in project.ledger.committed} == {key for key, _ in project.expected}
    for key, number in project.expected:
        assert max(n for k, n in project.ledger.committed if k == key) >= number


def test_a_job_that_fails_before_its_first_checkpoint_starts_from_the_beginning(project: Project) -> None:
    project.config = {"restart.strategy": "fixed-delay", "restart.delay": 1, "checkpoint.interval": "1h"}
    project.start(1, step=FailsAt(300), block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_attempts_run_out(project: Project) -> None:
    project.config = {"restart.strategy": "fixed-delay", "restart.delay": 1, "restart.attempts": 2}
    with pytest.raises(PipelineError, match="failed at 12"):
        project.start(1, step=FailsAt(10, 11, 12), block=True)


def test_without_a_strategy_the_first_failure_ends_the_job(project: Project) -> None:
    with pytest.raises(PipelineError, match="failed at 1000"):
        project.start(1, step=FailsAt(1000), block=True)
    project.start(1, restore="latest", block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_cancelling_makes_a_last_checkpoint_from_which_the_job_goes_on(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(2)
    project.until(lambda: completed(handle) >= 2)
    handle.cancel()
    assert handle.wait(30) == "cancelled"
    assert handle.checkpoints()[-1].kind == "stop-with-checkpoint"
    assert 0 < len(project.ledger.committed) < project.numbers
    assert project.ledger.prepared == {}
    project.gate[0] = project.numbers
    project.start(2, restore="latest", block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_a_savepoint_leaves_the_job_alone_and_another_can_start_from_it(project: Project, tmp_path: Path) -> None:
    project.gate[0] = 2000
    handle = project.start(2)
    project.until(lambda: len(project.ledger.committed) > 1900)
    place = handle.savepoint(tmp_path / "mine", timeout=30)
    project.gate[0] = project.numbers
    assert handle.wait(60) == "finished"
    assert sorted(project.ledger.committed) == project.expected
    other = Project(tmp_path / "other" / ".sage")
    other.ledger.prepared = {}
    other.start(2, restore=place, block=True)
    counted = other.ledger.committed
    assert 0 < len(counted) < project.numbers
    assert dict(sorted(counted)) == dict(project.expected)  # goes on where it was


def test_a_savepoint_of_a_job_without_checkpoints(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(1, config={"checkpointing": "none"})
    project.until(lambda: handle.metrics().records_in > 500)
    place = handle.stop_with_savepoint(timeout=30)
    assert handle.status() == "finished"
    project.gate[0] = project.numbers
    project.start(1, restore=place, block=True, config={"checkpointing": "none"})
    assert sorted(project.ledger.committed) == project.expected


@pytest.mark.parametrize("config", BACKENDS)
def test_rescaling_over_savepoints_keeps_every_keys_state(config: dict[str, Any], tmp_path: Path) -> None:
    """1 → 4 → 2 → 7, each run stopped in the middle."""
    project, restore = Project(tmp_path / ".sage", config), None
    for parallelism, end in ((1, 1000), (4, 2500), (2, 4000)):
        project.gate[0] = end
        handle = project.start(parallelism, restore=restore)
        project.until(lambda end=end: len(project.ledger.committed) >= end - 200)  # type: ignore[misc]
        restore = handle.stop_with_savepoint(timeout=30)
    assert len(project.ledger.committed) < project.numbers
    project.gate[0] = project.numbers
    project.start(7, restore=restore, block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_latest_after_stopping_with_a_savepoint_is_that_savepoint(project: Project, tmp_path: Path) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    project.until(lambda: completed(handle) >= 1)
    handle.stop_with_savepoint(tmp_path / "mine", timeout=30)
    project.gate[0] = project.numbers
    project.start(1, restore="latest", block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_rescaling_from_an_unaligned_checkpoint(project: Project) -> None:
    """A slow step fills the channels, so that records are on their way when the barrier overtakes them."""
    gate = threading.Event()
    slow = threading.Event()

    def step(record: Record) -> Record:
        if not gate.is_set():
            slow.wait(0.002)
        return record

    project.config = {"checkpoint.unaligned": True, "chaining": False}
    project.pause = 0.0
    handle = project.start(2, step=step)
    project.until(lambda: any(stats.in_flight for stats in handle.checkpoints() if stats.state == "completed"))
    handle.abort()
    handle.wait(30)
    gate.set()
    project.start(3, restore="latest", step=step, block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_latest_without_a_checkpoint_starts_anew_and_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.start(1, restore="latest", block=True)
    assert "has no checkpoint yet: it starts from the beginning" in capsys.readouterr().err
    assert sorted(project.ledger.committed) == project.expected


def test_latest_is_never_a_checkpoint_of_the_run_before(project: Project) -> None:
    """The last run began anew and was stopped before its first checkpoint: so does the next."""
    project.start(1, block=True)
    project.ledger = Ledger()
    handle = project.start(1, config={"checkpoint.interval": "1h"})
    handle.abort()
    handle.wait(30)
    project.start(1, restore="latest", block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_a_run_from_the_beginning_tells_what_an_earlier_one_left(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    project.until(lambda: completed(handle) >= 1)
    handle.cancel()
    handle.wait(30)
    capsys.readouterr()
    left = handle.checkpoints()[-1].checkpoint_id
    project.gate[0] = project.numbers
    project.ledger = Ledger()
    project.start(1, block=True)
    assert f"--restore {left} continues it" in capsys.readouterr().err
    assert sorted(project.ledger.committed) == project.expected
    project.start(1, block=True)
    assert capsys.readouterr().err == ""  # the run before came to its end


def test_a_finished_job_has_nothing_left_to_do(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.start(2, block=True)
    again = project.start(2, restore="latest", block=True)
    assert "nothing left to do" in capsys.readouterr().err
    assert again.metrics().records_in == 0
    assert sorted(project.ledger.committed) == project.expected


def test_restoring_by_number(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(1, config={"checkpoint.retained": 50})
    project.until(lambda: completed(handle) >= 4)
    handle.abort()
    handle.wait(30)
    project.gate[0] = project.numbers
    project.start(1, restore=str(handle.checkpoints()[0].checkpoint_id), block=True)
    assert max(number for _, number in project.ledger.committed) == max(number for _, number in project.expected)
    with pytest.raises(StateError, match="has no checkpoint 999"):
        project.start(1, restore="999")


def test_a_torn_manifest_is_refused_not_passed_over(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    project.until(lambda: completed(handle) >= 3)
    handle.abort()
    handle.wait(30)
    newest, older = sorted(project.checkpoints.glob("chk-*/manifest.json"), key=lambda p: p.stat().st_mtime)[::-1][:2]
    whole = newest.read_bytes()
    for torn in (whole[: len(whole) // 2], whole.replace(b'"written":', b'"wRitten":', 1), b""):
        newest.write_bytes(torn)
        with pytest.raises(StateError, match="is damaged") as caught:
            project.start(1, restore="latest")
        assert "--restore ID" in caught.value.hint
    project.gate[0] = project.numbers
    project.start(1, restore=older.parent.name.removeprefix("chk-"), block=True)


def test_a_missing_or_torn_state_file_is_named(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    project.until(lambda: completed(handle) >= 2)
    handle.cancel()
    handle.wait(30)
    (state,) = Path(handle.checkpoints()[-1].path).glob("*/keyed.state")
    whole = state.read_bytes()
    state.write_bytes(whole[:-20])
    with pytest.raises(StateError, match=r"keyed\.state"):
        project.start(1, restore="latest")
    state.unlink()
    with pytest.raises(StateError, match="is damaged") as caught:
        project.start(1, restore="latest")
    assert "keyed.state" in caught.value.cause
    state.write_bytes(whole)
    project.gate[0] = project.numbers
    project.start(1, restore="latest", block=True)
    assert sorted(project.ledger.committed) == project.expected


def test_state_of_an_operator_that_is_gone_is_refused_or_dropped(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    project.until(lambda: completed(handle) >= 1)
    handle.cancel()
    handle.wait(30)
    with pytest.raises(StateError, match="'count', which this job does not have") as caught:
        project.start(1, restore="latest", step=lambda pair: pair)  # every operator behind it gets another id
    assert "uid=" in caught.value.hint
    assert "--allow-non-restored-state" in caught.value.hint
    read = sum(number for _, number in _last_of_each_key(project))
    project.gate[0], project.ledger = project.numbers, Ledger()
    capsys.readouterr()
    project.start(1, restore="latest", drop_state=True, step=lambda pair: pair, block=True)
    assert "drops the state of 'count'" in capsys.readouterr().err
    # The source went on where it was; the counts began anew.
    assert sum(number for _, number in _last_of_each_key(project)) == project.numbers - read


def _last_of_each_key(project: Project) -> list[tuple[int, int]]:
    return list({key: (key, number) for key, number in sorted(project.ledger.committed)}.values())


def test_two_runs_of_one_job_do_not_share_a_folder(project: Project) -> None:
    project.gate[0] = 2000
    handle = project.start(1)
    with pytest.raises(StateError, match="Another run of this job") as caught:
        project.start(1)
    assert str(os.getpid()) in caught.value.cause
    handle.abort()
    handle.wait(30)
    project.gate[0] = project.numbers
    project.start(1, block=True)


def test_a_full_disk_fails_checkpoints_and_not_the_job(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"left": 0}
    sync = os.fsync

    def fsync(fd: int) -> None:
        if full["left"] > 0:
            full["left"] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    monkeypatch.setattr("sage.core.checkpoint.storage.os.fsync", fsync)
    project.gate[0] = 2000
    handle = project.start(1)
    full["left"] = 3
    project.until(lambda: full["left"] == 0 and completed(handle) > 0)
    project.gate[0] = project.numbers
    handle.wait(30)
    failed = [stats for stats in handle.checkpoints() if stats.state == "failed"]
    assert len(failed) == 3
    assert "No space left on device" in failed[0].error
    assert all(not Path(stats.path).exists() for stats in failed)
    assert sorted(project.ledger.committed) == project.expected


def test_a_disk_that_stays_full_fails_the_job_in_the_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handle = project.start(1, config={"checkpoint.tolerable_failures": 2, "checkpoint.interval": "100ms"})
    monkeypatch.setattr("sage.core.checkpoint.storage.os.fsync", fsync)
    with pytest.raises(PipelineError, match="3 checkpoints of 'counting' failed in a row"):
        handle.wait(30)
    assert project.ledger.committed == []


def test_a_function_that_hangs_is_found_and_named(project: Project) -> None:
    forever = threading.Event()

    def step(record: Record) -> Record:
        if record[0] == 50:
            forever.wait(60)  # what hangs
        return record

    with pytest.raises(PipelineError, match="hangs") as caught:
        project.start(1, step=step, block=True, config={"hang.timeout": "200ms"})
    forever.set()
    assert "test_jobs.py" in caught.value.cause


def test_a_restart_that_waits_for_a_hanging_task_says_so(project: Project) -> None:
    forever = threading.Event()
    calls = 0

    def step(record: Record) -> Record:
        nonlocal calls
        calls += 1
        if calls == 500:
            forever.wait(60)
        return record

    config = {"hang.timeout": "150ms", "restart.attempts": 3, "restart.delay": 1, "restart.deadline": "200ms"}
    with pytest.raises(PipelineError, match="cannot start again") as caught:
        project.start(1, step=step, block=True, config=config)
    forever.set()
    assert "still waits for" in caught.value.cause
    assert "test_jobs.py" in caught.value.cause


def test_the_identity_is_the_name_and_the_projects_folder(tmp_path: Path) -> None:
    assert identity("a job", tmp_path) == identity("a job", tmp_path)
    names = {identity(name, folder) for name in ("a job", "a-job") for folder in (tmp_path, tmp_path / "x")}
    assert len(names) == 4
    assert identity("../../etc", tmp_path).startswith("etc-")
    assert identity("x", tmp_path, 2) == identity("x", tmp_path) + "-2"


def test_counted_sources_go_on_where_they_were(tmp_path: Path) -> None:
    """Lists and generator functions are read again up to the record that the checkpoint holds."""
    project = Project(tmp_path / ".sage")

    def numbers() -> Iterator[int]:
        yield from range(3000)

    makers: list[Callable[[Any], Any]] = [
        lambda env: env.from_collection(range(3000)),
        lambda env: env.from_source(numbers),
        lambda env: env.from_batch(lambda: iter(range(3000))),
    ]
    for make in makers:
        seen: list[int] = []
        failing = FailsAt(1000, 2500)
        with session.use(session.Session(home=project.home)):
            env = LocalEnvironment(
                "counted", {"checkpoint.interval": "1ms", "restart.attempts": 5, "restart.delay": 1, "buffer.size": 8}
            )
            stream = make(env).map(lambda n, failing=failing: failing((n, 1))[0])
            stream._operator_sink("ledger", SinkOperatorFactory(ledger := Ledger()))
            env.submit()
        seen += ledger.committed
        assert seen == list(range(3000))


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be kept"):
        JobFolder(tmp_path / "file" / "job").acquire()


def test_a_savepoint_asked_for_while_the_job_ends_leaves_the_folder_free(project: Project) -> None:
    """It is refused, and the next run of the job is not told that another one still runs."""
    handle = project.start(1, block=True, config={"checkpointing": "none"})
    job = handle._job
    with pytest.raises(StateError, match="has ended"):
        job._checkpoints.first_savepoint(job._attempt.coordinator)
    assert project.start(1, block=True).status() == "finished"


def test_a_checkpoint_that_vanishes_before_a_restart_is_missed(project: Project) -> None:
    """The job does not begin anew, which would count everything twice."""
    fails = threading.Event()

    def step(record: Record) -> Record:
        if fails.is_set():
            fails.clear()
            for folder in project.checkpoints.glob("chk-*"):
                shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError("failed")
        return record

    project.gate[0] = 1000
    handle = project.start(1, step=step, config={"restart.strategy": "fixed-delay", "restart.delay": 0})
    project.until(lambda: len(project.ledger.committed) > 500)
    fails.set()
    project.gate[0] = project.numbers
    with pytest.raises(PipelineError) as caught:
        handle.wait(60)
    assert str(project.checkpoints) in str(caught.value)
    assert len(set(project.ledger.committed)) == len(project.ledger.committed)


def test_a_folder_that_cannot_be_written_is_let_go(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise StateError("No space left on device")

    project.gate[0] = 10
    handle = project.start(1, config={"checkpointing": "none"})
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "begin_run", full)
        with pytest.raises(StateError, match="No space"):
            handle.savepoint(timeout=30)
    assert handle.savepoint(timeout=30)
    handle.abort()
    handle.wait(30)
