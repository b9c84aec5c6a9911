"""``sage llm restart`` tells the truth: a service that does not come back, and one that nobody knows any more."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from tests.helpers.tiny_daemon import TinyStack, kill, tiny_stack

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))


@pytest.fixture
def stack(tmp_path: pathlib.Path, free_port: Callable[[], int]) -> Iterator[TinyStack]:
    with tiny_stack(tmp_path, free_port) as made:
        yield made


def restart(stack: TinyStack, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SAGE_HOME": str(stack.home.root), "NO_COLOR": "1"}
    return subprocess.run(
        [SAGE, "llm", "restart", *words], capture_output=True, text=True, env=env, timeout=60, check=False
    )


@pytest.mark.spec("X6", "X11", "X12")
def test_a_service_that_does_not_come_back_is_a_failure(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    assert restart(stack, "engine").returncode == 0
    stack.behave("engine", "exit")
    for words in (("engine",), ("engine", "--json"), ()):
        failed = restart(stack, *words)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "engine is not ready (it is failed)" in failed.stderr
        assert "exited with code 3" in failed.stderr
        assert "sage llm logs engine" in failed.stderr


@pytest.mark.spec("X6")
def test_what_was_stopped_stays_stopped_unless_it_is_named(stack: TinyStack) -> None:
    first = stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])[0].pid
    stack.client.stop(["engine"])
    assert restart(stack).returncode == 0
    assert stack.now("gateway").pid != first
    assert stack.now("engine").state == "stopped"
    assert restart(stack, "engine").returncode == 0
    assert stack.now("engine").state == "ready"


@pytest.mark.spec("R1", "X12")
def test_a_service_that_fell_with_its_supervisor_is_not_forgotten(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    stack.kill_supervisor()
    kill(stack.now("gateway").pid)
    for words in ((), ("gateway",)):
        refused = restart(stack, *words)
        assert refused.returncode == 3
        assert "gateway" in refused.stderr
        assert "sage llm serve" in refused.stderr
    assert stack.now("gateway").state == "dead"
    assert restart(stack, "engine").returncode == 0
