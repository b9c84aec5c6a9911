"""sage check-env: a row for everything, the next step for each problem, exit 1 when something required is broken."""

import json
import os
import pathlib
import shutil
import socket
import stat
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from sage.cli.checks import machine, packages, state
from sage.common.config.ports import SagePorts
from sage.common.home import SageHome

ROWS = ["python", "torch", "accelerator", "disk", "port", "WSL2", "built-in model", "model cache", "extra", "state"]


@pytest.mark.spec("X2")
def test_every_row_is_there_as_text_and_as_json(cli: Any) -> None:
    shown = cli("check-env", "--json")
    told = json.loads(shown.out)
    names = [row["name"] for row in told["checks"]]
    assert (
        list(dict.fromkeys(name.split()[0] if name.startswith(("port", "extra", "state")) else name for name in names))
        == ROWS
    )
    assert {row["status"] for row in told["checks"]} <= {"ok", "warn", "fail"}
    assert told["ok"] is (shown.code == 0)
    text = cli("check-env").out
    assert all(name in text for name in names)


@pytest.mark.spec("X2")
def test_torch_is_found_without_importing_it(cli: Any) -> None:
    loaded_before = "torch" in sys.modules
    row = next(row for row in json.loads(cli("check-env", "--json").out)["checks"] if row["name"] == "torch")
    assert row["status"] == "ok"
    assert ("torch" in sys.modules) is loaded_before


@pytest.mark.spec("X2")
def test_an_unwritable_state_directory_breaks_the_check(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", "/proc/nowhere/.sage")
    shown = cli("check-env")
    assert shown.code == 1
    row = next(line for line in shown.out.splitlines() if "state directory" in line)
    assert row.startswith("FAIL")
    assert "export SAGE_HOME=" in shown.out
    assert shown.err.startswith("Broken: ")
    assert shown.err.endswith("state directory.\n")


def test_a_file_in_the_place_of_the_state_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".sage").write_text("")
    check = state.state_directory(SageHome(tmp_path / ".sage"))
    assert (check.status, check.detail) == ("fail", f"{tmp_path / '.sage'} is not a folder")


@pytest.mark.spec("P2", "X2")
def test_a_taken_port_names_its_holder(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(state, "_DEFAULTS", (("llm", port, "--port"),))
        (check,) = state.ports(SageHome(home))
    assert check.status == "warn"
    assert f"in use by pid {os.getpid()}: " in check.detail
    assert "--port" in check.next


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warn")]
)
def test_python_versions(version: tuple[int, int], status: str) -> None:
    """R5: 3.11 to 3.13."""
    assert machine.python(version).status == status


@pytest.mark.parametrize(("free", "status"), [(100, "fail"), (2 * 1024**3, "warn"), (50 * 1024**3, "ok")])
def test_disk(free: int, status: str, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(total=free, used=0, free=free))
    assert machine.disk(SageHome(home)).status == status


def tool(folder: pathlib.Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_gpus_are_named_by_their_own_tool(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "CPU" in machine.accelerator().detail
    tool(tmp_path, "nvidia-smi", "echo 'NVIDIA H200, 143771 MiB'")
    monkeypatch.setattr(packages, "version_of", lambda name: "2.13.0+cpu")
    check = machine.accelerator()
    assert check.status == "warn"
    assert check.detail.startswith("NVIDIA H200, 143771 MiB, but torch 2.13.0+cpu cannot use it")
    assert "pip install" in check.next
    monkeypatch.setattr(packages, "version_of", lambda name: "2.13.0+cu130")
    assert machine.accelerator().status == "ok"


def test_a_tool_that_fails_or_hangs_counts_as_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROBE_SECONDS", 0.2)
    tool(tmp_path, "nvidia-smi", "echo broken; exit 9")
    tool(tmp_path, "npu-smi", "exec /bin/sleep 30")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "none found" in machine.accelerator().detail


@pytest.mark.parametrize(
    ("version", "status"), [(None, "warn"), ("2.5.1", "warn"), ("2.13.0+cpu", "ok"), ("3.0", "ok")]
)
def test_torch_versions(version: str | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version_of", lambda name: version)
    check = packages.torch()
    assert check.status == status
    assert bool(check.next) is (status != "ok")


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version_of", lambda name: None if name == "torch" else "1")
    engine = next(check for check in packages.extras() if check.name == "extra engine")
    assert "torch not installed" in engine.detail
    assert engine.next == 'pip install "sage-stack[engine]"'


@pytest.mark.spec("E9")
def test_the_builtin_model_must_be_whole(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagellm_core import builtin

    assert packages.builtin_model().status == "ok"
    monkeypatch.setattr(builtin, "path", lambda: tmp_path)
    check = packages.builtin_model()
    assert check.status == "fail"
    assert "config.json" in check.detail
    assert "pip install" in check.next


def test_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SagePorts, "is_wsl", staticmethod(lambda: True))
    assert str(SagePorts.LLM_WSL_FALLBACK) in machine.wsl().detail
