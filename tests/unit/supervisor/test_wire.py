"""The control socket is reached by its user alone."""

import os
from pathlib import Path

import pytest

from sage.common.errors import StateError
from sage.common.home import SageHome
from sage.supervisor.wire import check_socket_folder


class Elsewhere(SageHome):
    """A home whose socket stands in another directory, as for a deep `.sage/`."""

    __slots__ = ()

    @property
    def socket(self) -> Path:
        return self.root.parent / "shared" / "x.sock"


@pytest.mark.spec("R4")
def test_a_private_directory_is_made_and_kept(tmp_path: Path) -> None:
    home = Elsewhere(tmp_path / ".sage")
    check_socket_folder(home, make=False)
    assert not home.socket.parent.exists()
    check_socket_folder(home, make=True)
    check_socket_folder(home, make=True)
    assert home.socket.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.spec("R4")
def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    home = Elsewhere(tmp_path / ".sage")
    home.socket.parent.mkdir()
    home.socket.parent.chmod(0o755)
    with pytest.raises(StateError, match="not a private directory"):
        check_socket_folder(home, make=True)


@pytest.mark.spec("R4")
def test_a_directory_of_somebody_else_or_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Elsewhere(tmp_path / ".sage")
    (tmp_path / "real").mkdir(mode=0o700)
    home.socket.parent.symlink_to(tmp_path / "real")
    with pytest.raises(StateError):
        check_socket_folder(home, make=True)
    home.socket.parent.unlink()
    home.socket.parent.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(StateError):
        check_socket_folder(home, make=True)


def test_a_home_that_holds_its_own_socket_is_not_looked_at(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_socket_folder(SageHome(tmp_path), make=True)
