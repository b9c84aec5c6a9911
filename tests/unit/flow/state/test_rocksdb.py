"""What only the RocksDB backend does: rows written in the background, increments, files, failures."""

import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.state_backends import Store

from sage.common.errors import StateError
from sage.core.runtime.settings import StateSettings
from sage.core.state.base import KeyedStateBackend, SnapshotRequest, StateSnapshot, StateTable
from sage.core.state.configured import keyed_backend, remove_leftovers
from sage.core.state.memory import MemoryKeyedState
from sage.core.state.rocksdb import RocksKeyedState, RocksSettings
from sage.core.state.rocksdb.rows import key_bytes

pytestmark = pytest.mark.spec("K5", "K6")


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    store = Store("rocksdb", tmp_path)
    yield store
    store.close()


def fill(backend: KeyedStateBackend, keys: range, value: str = "v") -> StateTable:
    table = backend.table("t", "s")
    for key in keys:
        backend.key = key
        table.put(f"{value}{key}")
    return table


def contents(backend: KeyedStateBackend) -> dict[object, object]:
    table = backend.table("t", "s")
    found = {}
    for key in list(table.keys()):
        backend.key = key
        found[key] = table.get()
    return found


def dirty_rows(backend: RocksKeyedState) -> int:
    return sum(len(rows.dirty) + len(rows.aging) for rows in backend._stores)


keys = st.recursive(
    st.integers()
    | st.text(max_size=4)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)


@given(keys, keys)
def test_rows_are_equal_exactly_for_equal_keys(left: object, right: object) -> None:
    assert (key_bytes(left) == key_bytes(right)) == (left == right)


@pytest.mark.parametrize(("left", "right"), [(-1, -2), (0, 2**61 - 1), (1, 1.5), (True, 2), ("1", 1), (b"a", "a")])
def test_keys_of_one_hash_have_rows_of_their_own(left: object, right: object) -> None:
    assert key_bytes(left) != key_bytes(right)


def test_slices_bound_what_is_dirty(tmp_path: pathlib.Path) -> None:
    settings = RocksSettings(dirty_rows=100, slice_rows=50, cached_rows=64)
    backend = RocksKeyedState(0, 127, folder=tmp_path / "db", settings=settings)
    table = backend.table("t", "s")
    most = 0
    for start in range(0, 5000, 40):
        for key in range(start, start + 40):
            backend.key = key
            table.put(key)
        backend.flush_slice()
        most = max(most, dirty_rows(backend))
    assert most <= 2 * 100 + 40
    for key in (0, 1234, 4999):
        backend.key = key
        assert table.get() == key
    assert all(len(rows.young) + len(rows.old) <= 2 * 64 for rows in backend._stores)
    backend.close()


def test_large_rows_are_bounded_by_their_bytes(tmp_path: pathlib.Path) -> None:
    settings = RocksSettings(cached_bytes=4 << 20)
    backend = RocksKeyedState(0, 127, folder=tmp_path / "db", settings=settings)
    table = backend.table("t", "s")
    most = 0
    for key in range(3000):
        backend.key = key
        table.put("x" * 10_000)
        if key % 64 == 0:
            backend.flush_slice()
            most = max(most, dirty_rows(backend))
    assert most <= 2 * (4 << 20) // 10_000 + 128
    assert sum(len(rows.young) + len(rows.old) for rows in backend._stores) <= 3 * (4 << 20) // 10_000
    backend.key = 5
    assert table.get() == "x" * 10_000
    backend.close()


def test_a_row_changed_all_the_time_is_not_written_each_time(tmp_path: pathlib.Path) -> None:
    backend = RocksKeyedState(0, 127, folder=tmp_path / "db", settings=RocksSettings(dirty_rows=10, slice_rows=2))
    table = backend.table("t", "s")
    for number in range(200):
        for key in ("hot", number):
            backend.key = key
            table.put(number)
        backend.flush_slice()
    assert 100 < backend._db.latest_sequence_number() < 250, "rows written, of 400 changes"
    backend.close()
    assert not (tmp_path / "db").exists()


def test_a_barrier_only_sets_rows_apart(store: Store) -> None:
    backend = store.open()
    fill(backend, range(500))
    request = store.request()
    write = backend.snapshot(request)
    assert list(request.folder.iterdir()) == [], "nothing is written while the task stands"
    table = fill(backend, range(0, 500, 2), "later")
    backend.key = 2
    assert table.get() == "later2"
    backend.key = 1
    assert table.get() == "v1"
    snapshot = write()
    restored = store.open()
    restored.restore([(request.folder, snapshot)])
    assert contents(restored) == {key: f"v{key}" for key in range(500)}
    assert contents(backend)[2] == "later2"


def test_too_much_dirty_makes_the_task_write_the_snapshot_itself(tmp_path: pathlib.Path) -> None:
    settings = RocksSettings(dirty_rows=10)
    backend = RocksKeyedState(0, 127, folder=tmp_path / "db", settings=settings)
    fill(backend, range(50))
    folder = tmp_path / "chk"
    folder.mkdir()
    write = backend.snapshot(SnapshotRequest(1, folder, tmp_path))
    fill(backend, range(50, 75))
    backend.flush_slice()
    assert not (folder / "db").exists()
    fill(backend, range(75, 200), "x")
    backend.flush_slice()
    assert (folder / "db").exists(), "the task did not wait for another thread"
    restored = RocksKeyedState(0, 127, folder=tmp_path / "other")
    restored.restore([(folder, write())])
    assert set(contents(restored)) == set(range(50))
    backend.close()
    restored.close()


def test_a_snapshot_that_is_given_up_loses_nothing(store: Store) -> None:
    backend = store.open()
    fill(backend, range(20))
    write = backend.snapshot(store.request())
    fill(backend, range(10, 30), "w")
    del write
    backend.flush_slice()
    expected = {key: f"v{key}" for key in range(10)} | {key: f"w{key}" for key in range(10, 30)}
    assert contents(backend) == expected
    restored = store.open()
    restored.restore([store.snapshot(backend)])
    assert contents(restored) == expected


def test_a_snapshot_that_fails_loses_nothing(store: Store) -> None:
    backend = store.open()
    fill(backend, range(20))
    request = store.request()
    (request.folder / "db").write_text("in the way")
    with pytest.raises(StateError, match="RocksDB cannot make a checkpoint"):
        backend.snapshot(request)()
    fill(backend, range(5), "w")
    restored = store.open()
    restored.restore([store.snapshot(backend)])
    assert contents(restored) == {key: f"{'w' if key < 5 else 'v'}{key}" for key in range(20)}


def test_the_other_thread_and_the_task_do_not_meet(store: Store) -> None:
    backend = store.open()
    fill(backend, range(3000))
    previous: StateSnapshot | None = None
    for turn in range(4):
        request = store.request(previous)
        write = backend.snapshot(request)
        made: list[StateSnapshot] = []
        thread = threading.Thread(target=lambda write=write, made=made: made.append(write()))
        thread.start()
        for start in range(0, 3000, 100):
            fill(backend, range(start, start + 100), f"turn{turn}-")
            backend.flush_slice()
        thread.join()
        [previous] = made
        restored = store.open()
        restored.restore([(request.folder, previous)])
        before = "v" if turn == 0 else f"turn{turn - 1}-"
        assert contents(restored) == {key: f"{before}{key}" for key in range(3000)}
        restored.close()


def test_a_checkpoint_writes_what_has_changed(store: Store) -> None:
    backend = store.open()
    fill(backend, range(20_000))
    folder, first = store.snapshot(backend)
    fill(backend, range(100), "new")
    second_folder, second = store.snapshot(backend, first)
    assert second.written < first.written / 10
    assert second.size > first.size / 2
    assert set(first.files) & set(second.files), "files of the first are named again"
    for place, snapshot in ((folder, first), (second_folder, second)):
        restored = store.open()
        restored.restore([(place, snapshot)])
        backend_key = contents(restored)[5]
        assert backend_key == ("v5" if snapshot is first else "new5")
        restored.close()


def test_increments_go_on_after_a_restore(store: Store) -> None:
    backend = store.open()
    fill(backend, range(20_000))
    saved = store.snapshot(backend)
    restored = store.open()
    restored.restore([saved])
    fill(restored, range(10), "new")
    again = store.snapshot(restored, saved[1])[1]
    assert again.written < saved[1].written / 10


def test_without_increments_everything_is_written(tmp_path: pathlib.Path) -> None:
    store = Store("rocksdb", tmp_path)
    backend = RocksKeyedState(0, 127, folder=tmp_path / "db", settings=RocksSettings(incremental=False))
    fill(backend, range(5000))
    first = store.snapshot(backend)[1]
    second = store.snapshot(backend, first)[1]
    assert second.written >= first.written * 0.9
    assert not {name for name in first.files if "shared" in name} & set(second.files)
    backend.close()


def test_names_in_the_shared_folder_are_used_once(store: Store) -> None:
    backend = store.open()
    fill(backend, range(100))
    saved = store.snapshot(backend)
    shared = {path: path.stat().st_ino for path in store.shared.iterdir()}
    for _ in range(2):  # two lives after the same checkpoint
        life = store.open()
        life.restore([saved])
        fill(life, range(50), "life")
        store.snapshot(life, saved[1])
        life.close()
    assert {path: path.stat().st_ino for path in shared} == shared
    assert len(list(store.shared.iterdir())) >= len(shared) + 2


def test_a_savepoint_moves_between_backends(tmp_path: pathlib.Path) -> None:
    store = Store("rocksdb", tmp_path)
    backend = store.open()
    expected = {key: f"v{key}" for key in range(200)}
    fill(backend, range(200))
    memory = MemoryKeyedState()
    memory.restore([store.snapshot(backend, savepoint=True)])
    assert contents(memory) == expected
    again = store.open()
    again.restore([store.snapshot(memory, savepoint=True)])
    assert contents(again) == expected
    with pytest.raises(StateError, match="made by the backend rocksdb"):
        MemoryKeyedState().restore([store.snapshot(backend)])
    store.close()


def test_a_value_that_cannot_be_written_is_named(store: Store) -> None:
    backend = store.open()
    backend.key = 1
    backend.table("t", "s").put(threading.Lock())
    with pytest.raises(StateError, match="A lock cannot be kept in state"):
        store.snapshot(backend)


def test_settings_choose_the_backend(tmp_path: pathlib.Path) -> None:
    memory = keyed_backend(StateSettings(), tmp_path, 0, 1)
    assert isinstance(memory, MemoryKeyedState)
    rocks = keyed_backend(StateSettings("rocksdb", memory=1 << 30), tmp_path, 1, 4)
    assert isinstance(rocks, RocksKeyedState)
    assert rocks.groups == (32, 63)
    assert rocks.settings.cached_rows == 1 << 18
    rocks.table("t", "s")
    assert len(list(tmp_path.iterdir())) == 1
    rocks.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: pathlib.Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f"{int(gone.stdout)}-0123456789ab"
    own = tmp_path / f"{os.getpid()}-0123456789ab"
    for path in (left, own, tmp_path / "not-ours"):
        path.mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, "not-ours"])


FULL_DISK = """
import pathlib, random, resource, sys
from sage.common.errors import StateError
from sage.core.state.base import SnapshotRequest
from sage.core.state.rocksdb import RocksKeyedState

folder = pathlib.Path(sys.argv[1])
backend = RocksKeyedState(0, 127, folder=folder / "db")
table = backend.table("t", "s")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for key in range(5000):
    backend.key = key
    table.put(random.randbytes(200))
(folder / "chk").mkdir()
try:
    backend.snapshot(SnapshotRequest(1, folder / "chk", folder))()
except StateError as error:
    print(f"{error.title}: {error.cause}")
backend.key = 4321
print(len(table.get()))
"""


def test_a_full_disk_ends_the_snapshot_and_nothing_hangs(tmp_path: pathlib.Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    said, _, size = ran.stdout.partition("\n")
    assert said.startswith("RocksDB cannot make a checkpoint in"), ran.stderr
    assert size.strip() == "200", "the state is there still"


def test_the_folder_of_a_process_in_another_container_stays(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "4194305-0123456789ab"  # larger than any process id here
    script = f"""
import fcntl, pathlib, sys
path = pathlib.Path({str(folder)!r}, "db")
path.mkdir(parents=True)
file = open(path / "LOCK", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        remove_leftovers(tmp_path)
        assert folder.exists()
        other.communicate()
    remove_leftovers(tmp_path)
    assert not folder.exists()


def test_a_forked_process_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = store.open()
    fill(backend, range(3))
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    with pytest.raises(StateError, match="forked process"):
        backend.snapshot(store.request())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(StateError, match="rocksdb is not installed") as caught:
        keyed_backend(StateSettings("rocksdb"), tmp_path, 0, 1)
    assert "sage-stack[flow]" in caught.value.hint
