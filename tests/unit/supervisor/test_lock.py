"""`.sage/lock`: what the kernel refuses comes as an error of ours."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from sage.common.errors import StateError
from sage.common.home import SageHome
from sage.supervisor.lock import take_lock


def test_one_holds_it(tmp_path: Path) -> None:
    home = SageHome(tmp_path / ".sage").ensure()
    lock = take_lock(home)
    assert lock is not None
    assert take_lock(home) is None
    os.close(lock)
    again = take_lock(home)
    assert again is not None
    os.close(again)


@pytest.mark.spec("X12", "R3")
def test_a_place_without_locks_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match="Cannot lock") as caught:
        take_lock(SageHome(tmp_path / ".sage").ensure())
    assert "SAGE_HOME" in caught.value.hint


def test_a_folder_in_its_place_is_a_clear_error(tmp_path: Path) -> None:
    home = SageHome(tmp_path / ".sage").ensure()
    home.lock.mkdir()
    with pytest.raises(StateError, match="Is a directory"):
        take_lock(home)
