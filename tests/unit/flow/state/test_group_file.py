"""The file of checkpoints and savepoints: whole, or not there."""

import errno
import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import StateError
from sage.core.runtime.partition import key_group
from sage.core.state.group_file import GroupFileReader, GroupFileWriter
from sage.core.state.groups import group_of, group_range
from sage.core.state.serialization import dump

pytestmark = pytest.mark.spec("K6")

BLOCKS = [("a", 0, b"zero"), ("b", 7, b""), ("a", 7, b"seven"), ("a", 7, b"again"), ("b", 127, b"x" * 1000)]


def write(path: pathlib.Path) -> None:
    with GroupFileWriter(path) as file:
        for table, group, block in BLOCKS:
            file.add(table, group, block)


def test_blocks_come_back_by_group(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "f")
    reader = GroupFileReader(tmp_path / "f")
    assert list(reader.blocks(range(128))) == BLOCKS
    assert list(reader.blocks([7])) == BLOCKS[1:4]
    assert list(reader.blocks([])) == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("cut") / "f"
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(StateError, match="is damaged") as caught:
        list(GroupFileReader(path).blocks(range(128)))
    assert str(path) in caught.value.title


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_byte_changed_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("flip") / "f"
    write(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(StateError, match="is damaged"):
        list(GroupFileReader(path).blocks(range(128)))


def test_a_full_disk_leaves_no_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_leaves_no_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StateError, match="cannot be kept in state"), GroupFileWriter(tmp_path / "f") as file:
        file.add("a", 1, dump(lambda: None))
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 300))
def test_ranges_cover_each_group_once(parallelism: int) -> None:
    owners = []
    for subtask in range(parallelism):
        first, last = group_range(subtask, parallelism)
        owners += [subtask] * (last - first + 1)
    assert owners == [group * parallelism // 128 for group in range(128)]


@given(st.integers() | st.text() | st.floats(allow_nan=False) | st.tuples(st.integers(), st.text()) | st.booleans())
def test_the_quick_way_to_the_group_is_the_same(key: object) -> None:
    assert group_of(key) == key_group(key)
