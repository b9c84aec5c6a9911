"""The examples that need no server run as they stand and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, tmp_path: Path, *options: str) -> list[str]:
    """What ``sage run local`` prints for an example, line by line."""
    done = subprocess.run(
        [Path(sys.executable).with_name("sage"), "run", "local", *options, EXAMPLES / name],
        env=os.environ | {"SAGE_HOME": str(tmp_path / ".sage")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.spec("K1", "X4")
def test_simple_pipeline(tmp_path: Path) -> None:
    assert run("simple_pipeline.py", tmp_path) == ["Processed: Hello", "Processed: World", "Processed: SAGE"]


@pytest.mark.spec("K2", "X4")
@pytest.mark.parametrize("tasks", ["1", "2"])
def test_word_count_is_the_same_with_any_number_of_tasks(tmp_path: Path, tasks: str) -> None:
    lines = run("word_count.py", tmp_path, "--parallelism", tasks)

    assert lines[:2] == ["4 to", "2 be"]
    assert sorted(lines[2:]) == ["1 dream", "1 is", "1 not", "1 or", "1 question", "1 sleep", "1 that", "1 the"]


@pytest.mark.spec("K9", "S2", "E10")
def test_nearest_text(tmp_path: Path) -> None:
    assert run("nearest_text.py", tmp_path) == [
        "When does the library open? -> The library opens at nine in the morning.",
        "At which pressure does the pump run? -> The pump runs at forty bar.",
    ]


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text()

    assert all(f"`{path.name}`" in table for path in EXAMPLES.glob("*.py"))
