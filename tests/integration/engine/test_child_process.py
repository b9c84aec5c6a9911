"""Children of an engine: what they leave behind says how they ended (SPEC E5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from sagellm_core.executor.messages import Answer, Stop
from sagellm_core.executor.process import ChildProcess

pytestmark = pytest.mark.spec("E5")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ChildProcess]]:
    children: list[ChildProcess] = []
    yield children
    for child in children:
        child.kill()


def start(children: list[ChildProcess], folder: Path, module: str) -> ChildProcess:
    children.append(ChildProcess(module, "rank 7", folder / "rank.log", Answer))
    return children[-1]


def test_the_end_of_its_log_says_why_a_child_ended(started: list[ChildProcess], tmp_path: Path) -> None:
    child = start(started, tmp_path, "sagellm_core.no_such_module")
    ended: Queue[ChildProcess] = Queue()
    child.on_end(ended.put)
    assert ended.get(timeout=30) is child
    story = child.obituary()
    assert story.startswith(f"rank 7 (pid {child.pid}) ended with exit code 1; its log ends:\n")
    assert "No module named sagellm_core.no_such_module" in story
    with pytest.raises((EOFError, OSError)):
        child.control.receive()


def test_a_child_that_was_stopped_is_no_news(started: list[ChildProcess], tmp_path: Path) -> None:
    child = start(started, tmp_path, "sagellm_core.executor.rank")
    ended: Queue[ChildProcess] = Queue()
    child.on_end(ended.put)
    child.stop(Stop(), within=30)
    assert child.process.returncode == 0, "it stopped when it was asked to"
    child.stop(Stop(), within=1)
    with pytest.raises(Empty):
        ended.get(timeout=0.1)


def test_a_child_ends_when_its_parent_lets_go_of_the_pipe(started: list[ChildProcess], tmp_path: Path) -> None:
    child = start(started, tmp_path, "sagellm_core.executor.rank")
    os.close(child._life)
    child._life = -1
    assert child.process.wait(30) == 1
    assert "ended with exit code 1" in child.obituary()
