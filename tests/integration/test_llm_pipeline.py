"""The llm-pipeline template with a user's own documents, and what it says when something is missing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.templates import render

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    """The pipeline of a fresh project."""
    render("llm-pipeline", tmp_path / "p")
    return str(tmp_path / "p" / "pipeline.py")


@pytest.mark.spec("X12", "S4")
def test_without_a_gateway_it_says_what_to_start(sage: Command, pipeline: str) -> None:
    done = sage("run", "local", pipeline, check=False)

    assert done.returncode == 3
    assert "sage llm serve" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.spec("X12", "S4")
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--docs", "nowhere", "No documents in"),
        ("--docs", "p/tests/expected.jsonl", "No documents in"),
        ("--questions", "nowhere.txt", "There is no file nowhere.txt"),
    ],
)
def test_missing_input_is_named_with_the_next_command(
    sage: Command, pipeline: str, option: str, value: str, said: str
) -> None:
    done = sage("run", "local", pipeline, "--", option, value, check=False)

    assert done.returncode == 2
    assert said in done.stderr
    assert f"sage run local pipeline.py -- {option}" in done.stderr


@pytest.mark.slow
@pytest.mark.spec("X4", "S4")
def test_own_documents_from_any_folder(sage: Command, pipeline: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "machines").mkdir(parents=True)
    (notes / "machines" / "pump.md").write_text("# Pump\n\nThe pump runs at 40 bar.\n")
    (notes / "lamp.md").write_text("# Lamp\n\nThe lamp in the hall is green.\n")
    (notes / "empty.md").write_text("")
    (tmp_path / "asked.txt").write_text("At which pressure does the pump run?\n\nWhich colour has the lamp?\n")

    sage("llm", "serve")
    options = ("--docs", "notes", "--questions", "asked.txt", "--answers", "answers.jsonl")
    done = sage("run", "local", pipeline, "--", *options)
    sage("llm", "stop")

    assert "3 documents, 2 passages, 2 questions" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["question"] for row in rows] == ["At which pressure does the pump run?", "Which colour has the lamp?"]
    assert {row["source"] for row in rows} <= {"notes/machines/pump.md", "notes/lamp.md", ""}
    for row in rows:
        assert f"Q: {row['question']}\nA: {row['answer']}\n" in done.stdout
