"""The log of a daemon that knows nothing of rotation."""

import os
from pathlib import Path

import pytest

from sage.supervisor.logfiles import LogFile


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "engine.log", max_bytes=100, backups=2)


def names(log: LogFile) -> list[str]:
    return sorted(file.name for file in log.path.parent.iterdir())


@pytest.mark.spec("R1")
def test_rotation_goes_on_under_an_open_descriptor(log: LogFile) -> None:
    fd = log.open()
    for number in range(4):
        os.write(fd, f"{number}".encode() * 120)
        assert log.rotate_if_big()
        assert log.size() == 0
    os.write(fd, b"next")
    os.close(fd)
    assert log.path.read_bytes() == b"next", "O_APPEND: no hole at the start"
    assert names(log) == ["engine.log", "engine.log.1", "engine.log.2"]
    assert log.path.with_name("engine.log.1").read_bytes() == b"3" * 120
    assert log.path.with_name("engine.log.2").read_bytes() == b"2" * 120


def test_small_files_stay(log: LogFile) -> None:
    assert not log.rotate_if_big()
    log.path.write_bytes(b"x" * 99)
    assert not log.rotate_if_big()


@pytest.mark.spec("R1")
def test_a_fresh_start_begins_a_new_file(log: LogFile) -> None:
    log.turn_over()
    assert names(log) == []
    for number in range(4):
        log.path.write_text(str(number))
        log.turn_over()
    assert names(log) == ["engine.log.1", "engine.log.2"]
    assert log.path.with_name("engine.log.1").read_text() == "3"


def test_only_the_user_may_read_it(log: LogFile) -> None:
    log.path.parent.rmdir()
    os.close(log.open())
    assert log.path.stat().st_mode & 0o077 == 0


def test_a_full_disk_gives_up_old_lines_for_new_ones(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    log.path.write_bytes(b"x" * 200)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sage.supervisor.logfiles.shutil.copyfile", full)
    assert log.rotate_if_big()
    assert names(log) == ["engine.log"]
    assert log.size() == 0


def test_trouble_with_the_disk_is_no_reason_not_to_start(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    log.path.write_bytes(b"x")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    log.turn_over()
    assert log.path.read_bytes() == b"x"
