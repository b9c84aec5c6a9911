"""``sage llm …`` as real processes over a real stack: life, wrong input, Ctrl-C, a damaged record."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from sage.common.config.ports import SagePorts

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))
pytestmark = [pytest.mark.timeout(150)]


def status(sage: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(sage("llm", "status", "--json", check=False).stdout)
    return told


def daemons(sage: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in status(sage)["daemons"]}


def start(sage: Any, *words: str) -> subprocess.Popen[str]:
    """The command in the background, in a process group of its own as a shell would start it."""
    return subprocess.Popen(
        [SAGE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=sage.env, cwd=sage.cwd,
        process_group=0,
    )  # fmt: skip


def read_until(stream: Any, words: str) -> str:
    """The first line that holds ``words``; fails where the stream ends before."""
    for line in stream:
        if words in line:
            return str(line)
    pytest.fail(f"{words!r} was never printed")


@pytest.mark.spec("R3", "X12")
def test_a_full_disk_is_told_before_anything_starts(sage: Any) -> None:
    """A limit of no bytes on the size of files stands in for the full disk."""
    command = ["bash", "-c", 'ulimit -f 0 && exec "$@"', "-", SAGE, "llm", "serve"]
    full = subprocess.run(command, capture_output=True, text=True, env=sage.env, cwd=sage.cwd, timeout=60, check=False)
    assert full.returncode == 1
    assert "File too large" in full.stderr
    assert "next:" in full.stderr
    assert "starting" not in full.stderr
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("X6", "X11", "P2")
def test_the_life_of_a_stack(sage: Any, free_port: Callable[[], int]) -> None:
    """Serve on chosen ports, twice at once; ask for something else, read logs, restart one, stop one, bring it back."""
    ports = {"gateway": free_port(), "engine": free_port(), "embedding": free_port()}
    chosen = ["--gateway-port", ports["gateway"], "--port", ports["engine"], "--embedding-port", ports["embedding"]]
    first = start(sage, "llm", "serve", "--json", *map(str, chosen))
    read_until(first.stderr, "engine     starting")
    again = sage("llm", "serve")
    out, err = first.communicate(timeout=60)
    told = json.loads(out)
    assert told["ready"] is True
    assert {row["name"]: row["port"] for row in told["daemons"]} == ports
    assert "Ready in" in err

    assert "waiting for it" in again.stderr
    assert "Already running." in again.stderr
    assert f"http://127.0.0.1:{ports['gateway']}/v1" in again.stdout
    assert "demonstration" in again.stderr

    other = sage("llm", "serve", "--port", str(free_port()), "--no-embedding", check=False)
    assert other.returncode == 1
    assert f"engine listens on port {ports['engine']}, not " in other.stderr
    assert "sage llm stop && sage llm serve --port" in other.stderr

    assert sage("llm", "logs", "engine", "--tail", "3").stdout.strip()
    assert {json.loads(line)["log"] for line in sage("llm", "logs", "--json").stdout.splitlines()} >= {"engine"}
    metrics = json.loads(sage("monitor", "metrics", "--json").stdout)
    assert [engine["state"] for engine in metrics["engines"]] == ["ready"]
    assert "engine" in sage("monitor").stdout

    before = daemons(sage)
    assert "Restarted embedding" in sage("llm", "restart", "embedding").stderr
    after = daemons(sage)
    assert after["embedding"]["pid"] != before["embedding"]["pid"]
    assert after["embedding"]["port"] == ports["embedding"]
    assert after["engine"]["pid"] == before["engine"]["pid"]

    assert "Stopped embedding." in sage("llm", "stop", "embedding").stderr
    assert daemons(sage)["embedding"]["state"] == "stopped"
    assert sage("llm", "status", check=False).returncode == 0
    sage("llm", "serve")
    assert {row["state"] for row in daemons(sage).values()} == {"ready"}

    stopped = sage("llm", "stop")
    assert all(name in stopped.stderr for name in ports)
    assert sage("llm", "status", check=False).returncode == 3
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("P2")
def test_a_taken_default_port_moves_and_the_status_says_why(sage: Any) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if SagePorts.is_available(SagePorts.GATEWAY_DEFAULT):
            holder.bind(("127.0.0.1", SagePorts.GATEWAY_DEFAULT))
            holder.listen()
        served = sage("llm", "serve", "--no-embedding")
    moved = f"port {SagePorts.GATEWAY_DEFAULT} is in use by pid "
    assert moved in served.stderr
    told = status(sage)
    assert any(moved in note for note in told["notes"])
    assert daemons(sage)["gateway"]["port"] != SagePorts.GATEWAY_DEFAULT
    assert "embedding" not in daemons(sage)
    sage("llm", "stop")


@pytest.mark.spec("P2", "X12")
def test_a_taken_port_that_was_asked_for_starts_nothing(sage: Any) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = sage("llm", "serve", "--port", str(holder.getsockname()[1]), check=False)
    assert done.returncode == 1
    assert f"pid {os.getpid()}" in done.stderr
    assert "pytest" in done.stderr
    assert "sage llm serve --port " in done.stderr
    assert sage.processes() == []


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("model", "said"),
    [("./nothing", "There is no folder './nothing'"), (".", "no config.json"), ("org/name", "hf download org/name")],
)
def test_a_wrong_model_starts_nothing(model: str, said: str, sage: Any) -> None:
    done = sage("llm", "serve", "--model", model, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("R1", "X12")
def test_a_model_that_cannot_be_loaded_is_told_and_nothing_is_left(sage: Any) -> None:
    folder = sage.cwd / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    done = sage("llm", "serve", "--model", "broken", check=False)
    assert done.returncode == 1
    assert "engine is not ready" in done.stderr
    assert "sage llm logs engine" in done.stderr
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("X6", "X11")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_starting_leaves_nothing(number: signal.Signals, sage: Any) -> None:
    child = start(sage, "llm", "serve")
    read_until(child.stderr, "engine     starting")
    os.killpg(child.pid, number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "stopping what was started" in err
    assert "Traceback" not in err
    assert sage.processes() == []
    assert sage("llm", "status", check=False).returncode == 3


@pytest.mark.slow
@pytest.mark.spec("X6")
def test_stopped_by_somebody_else_while_starting(sage: Any) -> None:
    child = start(sage, "llm", "serve", "--no-embedding")
    read_until(child.stderr, "gateway    starting")
    assert "Stopped engine, gateway." in sage("llm", "stop").stderr
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "stopped while they started" in err
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("X6")
def test_the_foreground_stays_and_ctrl_c_stops_the_stack(sage: Any) -> None:
    child = start(sage, "llm", "serve", "--foreground", "--no-embedding")
    read_until(child.stderr, "In the foreground")
    assert set(daemons(sage)) == {"engine", "gateway"}
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Stopped." in err
    assert "engine" in out
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("X6", "R3")
def test_a_damaged_record_loses_nothing(sage: Any, until: Callable[..., None]) -> None:
    """The running services are found again; stop stops them all; the damaged file is kept aside."""
    sage("llm", "serve", "--no-embedding")
    pids = {row["pid"] for row in daemons(sage).values()}
    supervisors = [process for process in sage.processes() if process.pid not in pids]
    for process in supervisors:
        process.kill()
    until(lambda: not any(process.is_running() for process in supervisors), what="the supervisor is gone")
    (sage.home / "llm" / "daemon.json").write_text('{"version": 1, "daemons": {')
    served = sage("llm", "serve", "--no-embedding")
    assert {row["pid"] for row in daemons(sage).values()} == pids, served.stderr
    assert list((sage.home / "llm").glob("daemon.json.corrupt-*"))
    sage("llm", "stop")
    assert sage.processes() == []


@pytest.mark.slow
@pytest.mark.spec("X6", "X8")
def test_followed_logs_bring_new_lines_until_ctrl_c(sage: Any) -> None:
    logs = sage.home / "logs"
    logs.mkdir(parents=True)
    (logs / "engine.log").write_text("first\n")
    child = start(sage, "llm", "logs", "--follow")
    assert child.stdout is not None
    assert child.stdout.readline() == "first\n"
    read_until(child.stderr, "Following")
    with (logs / "engine.log").open("a") as file:
        file.write("second\n")
    assert child.stdout.readline() == "second\n"
    started = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode == 130
    assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.spec("X6", "X11")
@pytest.mark.parametrize("delay", [0.2, 0.3, 0.4, 0.5, 0.7])
def test_interrupted_at_any_moment_leaves_nothing(delay: float, sage: Any) -> None:
    """While Python starts, while the supervisor starts, while the services do; -2: before there was a handler."""
    child = start(sage, "llm", "serve", "--no-embedding")
    time.sleep(delay)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode in (130, -signal.SIGINT)
    assert sage.processes() == []
