"""A state folder inside a folder that the person may not enter: each command says so, with the next step."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))
AS_ROOT = os.geteuid() == 0
LIMITED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root without the power to enter every folder."""

pytestmark = [
    pytest.mark.spec("R3", "X12", "P3"),
    pytest.mark.skipif(AS_ROOT and shutil.which("setpriv") is None, reason="root enters every folder"),
]


@pytest.fixture
def closed(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    folder = tmp_path / "closed"
    folder.mkdir()
    if AS_ROOT:
        shutil.chown(folder, "nobody")
    folder.chmod(0o000)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("llm", "status"), 3, "Nothing is running"),
        (("llm", "serve"), 1, "cannot write its state"),
        (("llm", "stop"), 1, "Cannot reach the supervisor"),
        (("llm", "logs"), 3, "no logs yet"),
        (("monitor",), 0, "Nothing runs here yet"),
        (("check-env",), 1, "FAIL  state directory"),
        (("config", "show"), 1, "Give yourself read access"),
    ],
)
def test_a_folder_that_cannot_be_entered(
    words: tuple[str, ...], code: int, said: str, closed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SAGE_")} | {"SAGE_HOME": str(closed / ".sage")}
    command = [*(LIMITED if AS_ROOT else ()), SAGE, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "The operating system refused it" not in done.stderr
    assert "error:" not in done.stderr or "next:" in done.stderr
