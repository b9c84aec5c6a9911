"""Where `.sage/` is, and what happens when it cannot be written."""

import os
import stat
from pathlib import Path

import pytest

from sage.common.errors import StateError
from sage.common.home import SageHome

AS_ROOT = os.geteuid() == 0


@pytest.mark.spec("P3")
def test_the_environment_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".sage").mkdir()
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "elsewhere"))
    assert SageHome.find(tmp_path).root == tmp_path / "elsewhere"


@pytest.mark.spec("P3")
def test_the_nearest_ancestor_wins(tmp_path: Path) -> None:
    (tmp_path / ".sage").mkdir()
    (tmp_path / "a" / ".sage").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert SageHome.find(tmp_path / "a" / "b" / "c").root == tmp_path / "a" / ".sage"
    assert SageHome.find(tmp_path).root == tmp_path / ".sage"


@pytest.mark.spec("P3")
def test_else_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert SageHome.find().root == tmp_path / "me" / ".sage"
    assert not (tmp_path / "me").exists(), "finding makes nothing"


def test_a_file_of_that_name_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".sage").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert SageHome.find(tmp_path).root == tmp_path / "me" / ".sage"


def test_a_removed_current_directory_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert SageHome.find().root == tmp_path / "me" / ".sage"


def test_ensure_makes_private_directories(tmp_path: Path) -> None:
    home = SageHome(tmp_path / "deep" / ".sage").ensure()
    for folder in (home.root, home.llm_dir, home.logs, home.checkpoints):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert home.ensure() == home
    assert home.daemon_json == home.root / "llm" / "daemon.json"
    assert home.state_db.parent == home.lock.parent == home.root
    assert home.project == tmp_path / "deep"


@pytest.mark.parametrize("root", [".sage", ".sage/deeper", ".sage/deeper/still"])
def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path, root: str) -> None:
    (tmp_path / ".sage").write_text("not a directory")
    with pytest.raises(StateError) as caught:
        SageHome(tmp_path / root).ensure()
    assert str(tmp_path / root) in caught.value.title
    assert caught.value.cause == f"{tmp_path / '.sage'} is a file, not a folder"
    assert "SAGE_HOME" in caught.value.hint


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StateError, match="cannot write"):
            SageHome(tmp_path / ".sage").ensure()
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_home_that_exists_is_a_clear_error(home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StateError) as caught:
        home.ensure()
    assert caught.value.cause == "no permission to write"


def test_the_socket_path_fits_the_kernel(tmp_path: Path) -> None:
    near = SageHome("/tmp/x/.sage")
    assert near.socket == near.root / "supervisor.sock"
    deep = SageHome(tmp_path / ("d" * 120) / ".sage")
    assert len(os.fsencode(deep.socket)) <= 100
    assert deep.socket.parent == Path(f"/tmp/sage-{os.getuid()}")
    assert deep.socket != SageHome(tmp_path / ("e" * 120) / ".sage").socket


def test_homes_are_values(tmp_path: Path) -> None:
    assert SageHome(tmp_path) == SageHome(str(tmp_path))
    assert {SageHome(tmp_path): 1}[SageHome(tmp_path)] == 1
    with pytest.raises(AttributeError):
        SageHome(tmp_path).root = tmp_path
