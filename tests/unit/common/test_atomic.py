"""Files that are wholly there or not."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sage.common.atomic import read_json, set_aside, write_json
from sage.common.errors import StateError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ü": [1, None, True]})
    assert read_json(path) == {"ü": [1, None, True]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, "old")

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateError) as caught:
        write_json(path, "new")
    monkeypatch.undo()
    assert "No space left" in caught.value.cause
    assert read_json(path) == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"nonsense"])
def test_damage_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        read_json(path)


def test_absence_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


def test_damaged_files_are_kept_under_distinct_names(tmp_path: Path) -> None:
    kept = set()
    for number in range(3):
        path = tmp_path / "a.json"
        path.write_text(str(number))
        kept.add(set_aside(path))
        assert not path.exists()
    assert sorted(path.read_text() for path in kept) == ["0", "1", "2"]
    assert all(path.name.startswith("a.json.corrupt-2") for path in kept)
