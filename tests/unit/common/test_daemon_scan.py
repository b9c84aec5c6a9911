"""Finding daemons among the processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.common import daemon_scan
from sage.common.home import SageHome


@pytest.fixture
def daemon(home: SageHome) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session and says that it is the daemon "engine" of this home."""
    spec = json.dumps({"name": "engine", "kind": "llm"})
    env = {**os.environ, "SAGE_HOME": str(home.root), "SAGE_DAEMON": "engine", "SAGE_DAEMON_SPEC": spec}
    code = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.communicate(b"\n")


@pytest.fixture(params=["proc", "psutil"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "psutil":
        monkeypatch.setattr("sage.common.daemon_scan.sys.platform", "darwin")


@pytest.mark.spec("R1")
@pytest.mark.usefixtures("both_ways")
def test_a_daemon_is_found_with_what_it_says_of_itself(home: SageHome, daemon: subprocess.Popen[bytes]) -> None:
    found = daemon_scan.scan(home)
    assert [(one.identity.pid, one.spec["kind"]) for one in found] == [(daemon.pid, "llm")]
    assert found[0].env["SAGE_DAEMON"] == "engine"
    assert [pid for pid, _ in daemon_scan.daemon_environments(home, "engine")] == [daemon.pid]
    assert list(daemon_scan.daemon_environments(home, "gateway")) == []


@pytest.mark.usefixtures("daemon")
def test_daemons_of_another_home_are_not_ours(tmp_path: Path) -> None:
    assert daemon_scan.scan(SageHome(tmp_path / "other")) == []


def test_a_home_under_another_name_is_the_same(home: SageHome, tmp_path: Path, daemon: subprocess.Popen[bytes]) -> None:
    (tmp_path / "link").symlink_to(home.root)
    assert [one.identity.pid for one in daemon_scan.scan(SageHome(tmp_path / "link"))] == [daemon.pid]
