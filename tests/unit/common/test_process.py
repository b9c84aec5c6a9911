"""A process is named by pid, start time and boot; a pid alone names nobody."""

import os
import subprocess
import sys

import pytest

from sage.common import process
from sage.common.process import ProcessIdentity, boot_id, command_line


def test_this_process_is_alive() -> None:
    me = ProcessIdentity.current()
    assert me.pid == os.getpid()
    assert me.boot_id == boot_id()
    assert me.alive()
    assert ProcessIdentity.of(os.getpid()) == me


@pytest.mark.spec("R1")
def test_a_reused_pid_is_another_process() -> None:
    me = ProcessIdentity.current()
    assert not me._replace(start_ticks=me.start_ticks - 1).alive(), "the same pid, started at another time"
    assert not me._replace(boot_id="another boot").alive(), "the same pid and ticks, before a reboot"


def test_the_dead_and_zombies_are_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(child.pid)
    assert identity is not None
    assert identity.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not identity.alive()
    assert ProcessIdentity.of(child.pid) is None
    child.communicate()
    assert not identity.alive()


@pytest.mark.parametrize("record", [None, 7, {}, {"pid": 1}, {"pid": 0, "start_ticks": 1, "boot_id": "b"},
                                    {"pid": "1", "start_ticks": 1, "boot_id": "b"}])  # fmt: skip
def test_nonsense_is_no_identity(record: object) -> None:
    assert ProcessIdentity.from_record(record) is None


def test_an_identity_survives_its_record() -> None:
    me = ProcessIdentity.current()
    assert ProcessIdentity.from_record(me._asdict()) == me


def test_names_with_spaces_and_brackets_do_not_confuse() -> None:
    """The name stands in brackets in /proc/<pid>/stat, unescaped."""
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0); print(flush=True); input()"
    if not sys.platform.startswith("linux"):
        pytest.skip("prctl is Linux")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity = ProcessIdentity.of(child.pid)
        child.communicate(b"\n")
    assert identity is not None
    assert identity.start_ticks >= ProcessIdentity.current().start_ticks


def test_command_lines() -> None:
    assert "python" in command_line(os.getpid()) or "pytest" in command_line(os.getpid())
    assert command_line(2**22 + 1) == ""


def test_elsewhere_psutil_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc."""
    monkeypatch.setattr(process, "_LINUX", False)
    me = ProcessIdentity.current()
    assert me.boot_id.startswith("boot-")
    assert me.alive()
    assert not me._replace(start_ticks=me.start_ticks - 100).alive()
    assert ProcessIdentity.of(2**22 + 1) is None
    assert command_line(os.getpid()) != ""
    assert command_line(2**22 + 1) == ""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessIdentity.of(child.pid) is None, "a zombie"
    child.wait()
