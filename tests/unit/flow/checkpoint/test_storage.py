"""Checkpoints on disk: whole or absent, found again, removed with what only they used (SPEC K6)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import StateError
from sage.core.checkpoint.in_flight import deal, read_in_flight, write_in_flight
from sage.core.checkpoint.job_folder import JobFolder
from sage.core.checkpoint.manifest import Manifest, OperatorEntry, SubtaskEntry, decode, encode
from sage.core.checkpoint.storage import CheckpointStorage, check_files, read_manifest
from sage.core.runtime.events import Batch
from sage.core.state.base import StateSnapshot

pytestmark = pytest.mark.spec("K6")


def manifest(checkpoint_id: int, files: tuple[str, ...] = (), *, finished: bool = False) -> Manifest:
    state = StateSnapshot("memory", (0, 127), list(files), schema={"count": "int"}, meta={"names": ["a", 1, None]})
    entry = OperatorEntry("count", [SubtaskEntry(keyed=state, finished=finished)])
    return Manifest(checkpoint_id, "job-1", "job", "checkpoint", 1.5, 2.5, {"op": entry})


def made(store: CheckpointStorage, checkpoint_id: int, *, own: str = "state", shared: tuple[str, ...] = ()) -> Path:
    """A complete checkpoint with a file of its own and some shared ones."""
    folder = store.begin(checkpoint_id)
    part = folder.make_part("op", 0)
    (part / own).write_bytes(b"own")
    for name in shared:
        (store.shared / name).write_bytes(b"shared")
    files = (own, *(os.path.relpath(store.shared / name, part) for name in shared))
    store.complete(folder, manifest(checkpoint_id, files))
    return folder.path


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStorage:
    found = CheckpointStorage(tmp_path / "job", retained=2)
    found.prepare()
    return found


def test_a_manifest_survives_the_way_to_disk(tmp_path: Path) -> None:
    whole = manifest(7, ("a", "../../shared/b"))
    assert decode(encode(whole), tmp_path) == whole


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_a_manifest_is_found(data: st.DataObject) -> None:
    """Cut short, or with any byte changed: refused, never read as something else."""
    whole = encode(manifest(7, ("state",)))
    position = data.draw(st.integers(0, len(whole) - 1))
    torn = whole[:position]
    changed = whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    for damaged in (torn, changed):
        with pytest.raises(StateError):
            decode(damaged, Path("chk-7/manifest.json"))


def test_a_manifest_of_another_version_is_named(tmp_path: Path) -> None:
    later = manifest(7)
    later.version = 99
    with pytest.raises(StateError, match="another version"):
        decode(encode(later), tmp_path / "manifest.json")


def test_what_has_no_manifest_does_not_exist(store: CheckpointStorage) -> None:
    made(store, 1)
    folder = store.begin(2)
    (folder.make_part("op", 0) / "state").write_bytes(b"x")
    assert store.completed() == [1]
    assert store.find(2) is None
    with pytest.raises(StateError, match="There is no checkpoint"):
        read_manifest(folder.path)
    CheckpointStorage(store.root).prepare()  # the next run
    assert not folder.path.exists()
    assert store.next_id == 2


def test_pruning_keeps_the_newest_and_what_they_use(store: CheckpointStorage) -> None:
    made(store, 1, shared=("a", "b"))
    made(store, 2, shared=("b", "c"))
    made(store, 3, shared=("c", "d"))
    assert store.prune() == [1]
    assert store.completed() == [2, 3]
    assert sorted(path.name for path in store.shared.iterdir()) == ["b", "c", "d"]
    for number in (2, 3):
        folder = store.root / f"chk-{number}"
        check_files(folder, read_manifest(folder))


def test_pruning_spares_what_the_run_began_with(store: CheckpointStorage) -> None:
    for number in (1, 2, 3, 4):
        made(store, number, shared=(f"s{number}",))
    assert store.prune(keep=[1]) == [2]
    assert store.completed() == [1, 3, 4]
    assert sorted(path.name for path in store.shared.iterdir()) == ["s1", "s3", "s4"]


def test_shared_files_stay_while_a_manifest_cannot_be_read(store: CheckpointStorage) -> None:
    for number in (1, 2, 3):
        made(store, number, shared=(f"s{number}",))
    (store.root / "chk-3" / "manifest.json").write_bytes(b"{}")
    store.prune()
    assert sorted(path.name for path in store.shared.iterdir()) == ["s1", "s2", "s3"]


def test_a_missing_file_is_named(store: CheckpointStorage) -> None:
    path = made(store, 1, shared=("a",))
    (store.shared / "a").unlink()
    with pytest.raises(StateError, match="is damaged") as caught:
        check_files(path, read_manifest(path))
    assert str(store.shared / "a") in caught.value.cause


def test_a_checkpoint_folder_can_be_moved(store: CheckpointStorage, tmp_path: Path) -> None:
    made(store, 1, shared=("a",))
    store.root.rename(tmp_path / "elsewhere")
    moved = JobFolder(tmp_path / "elsewhere").resolve("1")
    assert moved is not None
    assert moved.manifest.checkpoint_id == 1


def test_a_savepoint_takes_no_folder_that_holds_something(store: CheckpointStorage, tmp_path: Path) -> None:
    """A savepoint that fails is removed, with all that its folder holds."""
    place = tmp_path / "mine"
    place.mkdir()
    store.discard(store.begin(1, savepoint=True, path=place))
    place.mkdir()
    (place / "letter.txt").write_text("dear")
    with pytest.raises(StateError, match="not empty"):
        store.begin(2, savepoint=True, path=place)
    assert (place / "letter.txt").read_text() == "dear"


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    """A run that was killed does not hold the folder."""
    script = f"""
        import os, signal
        from pathlib import Path
        from sage.core.checkpoint.job_folder import JobFolder
        JobFolder(Path({str(tmp_path / "job")!r})).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -9
    folder = JobFolder(tmp_path / "job")
    folder.acquire()
    with pytest.raises(StateError, match="Another run"):
        JobFolder(tmp_path / "job").acquire()
    folder.release()
    JobFolder(tmp_path / "job").acquire()


def test_latest_follows_the_runs(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job", retained=5)
    assert folder.resolve("latest") is None
    folder.storage.prepare()
    assert folder.begin_run(None) == 1
    made(folder.storage, 1)
    made(folder.storage, 2)
    second = folder.resolve("latest")
    assert second is not None
    assert second.manifest.checkpoint_id == 2
    assert folder.begin_run(second) == 3  # a run from 2 that makes none itself
    assert folder.resolve("latest") == second
    assert folder.begin_run(None) == 3  # one from the beginning that makes none
    assert folder.resolve("latest") is None
    made(folder.storage, 3)
    folder.storage.note_stop(made(folder.storage, 4))
    stopped = folder.resolve("latest")
    assert stopped is not None
    assert stopped.manifest.checkpoint_id == 4
    assert folder.begin_run(None) == 5
    assert folder.resolve("latest") is None


def test_a_damaged_run_file_is_an_error(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job")
    folder.begin_run(None)
    for content in ("[1]", "{"):
        (folder.root / "run.json").write_text(content)
        with pytest.raises(StateError, match="damaged"):
            folder.resolve("latest")


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.lists(st.lists(st.integers(0, 50), max_size=5), max_size=4), min_size=1, max_size=4),
    parallelism=st.integers(1, 5),
)
def test_records_in_flight_are_dealt_out_once(parts: list[list[list[int]]], parallelism: int) -> None:
    """By key where there is one, whole subtasks else; in order, none lost, none twice."""
    waiting = [[(0, Batch(records)) for records in part] for part in parts]

    def by_key(number: int) -> list[int]:
        def share(port: int, batch: Batch) -> Batch:
            return Batch([record for record in batch.records if record % parallelism == number])

        return [r for _, batch in deal(waiting, number, parallelism, share) for r in batch.records]

    everything = sorted(record for part in parts for records in part for record in records)
    if len(parts) != parallelism:
        assert sorted(r for number in range(parallelism) for r in by_key(number)) == everything
    whole = [deal(waiting, number, parallelism, lambda port, batch: None) for number in range(parallelism)]
    assert sorted(r for part in whole for _, batch in part for r in batch.records) == everything


def test_torn_records_in_flight_are_found(tmp_path: Path) -> None:
    path = tmp_path / "records"
    write_in_flight(path, [(0, Batch([1, "two", (3,)], [10, 20, 30])), (1, Batch([{"a": {1}}]))])
    assert read_in_flight(path) == [(0, Batch([1, "two", (3,)], [10, 20, 30])), (1, Batch([{"a": {1}}]))]
    whole = path.read_bytes()
    for torn in (whole[:-1], b"", whole[:3], whole[:-1] + b"x"):
        path.write_bytes(torn)
        with pytest.raises(StateError, match="records"):
            read_in_flight(path)


def test_a_checkpoint_that_there_is_not_comes_with_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="There is no checkpoint at") as told:
        read_manifest(tmp_path)
    assert "--restore latest" in (told.value.hint or "")
