"""Run with:  python -m pytest   (no server needed)"""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    """The pipeline's functions, without running it."""
    spec = importlib.util.spec_from_file_location("pipeline", PROJECT / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["pipeline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_passages_know_their_heading_and_line(pipeline: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Pumps\n\nThe pump runs\nat 40 bar.\n\n## Lamps\nThe lamp is green.\n")

    passages = pipeline.split(page, tmp_path)

    assert [(p.text, p.heading, p.line) for p in passages] == [
        ("The pump runs at 40 bar.", "Pumps", 3),
        ("The lamp is green.", "Lamps", 7),
    ]


def test_prose_is_cut_between_sentences(pipeline: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(" ".join(f"This is the sentence with number {n}." for n in range(40)))

    passages = pipeline.split(page, tmp_path)

    assert all(len(p.text) <= pipeline.PASSAGE and p.text.endswith(".") for p in passages)
    assert " ".join(p.text for p in passages) == page.read_text()


def test_code_keeps_its_lines_and_its_hashes(pipeline: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Code\n\n```python\n# no heading\nif x:\n\n    y()\n```\n")

    assert [(p.text, p.heading) for p in pipeline.split(page, tmp_path)] == [("# no heading\nif x:\n\n    y()", "Code")]


def test_documents_are_the_text_files_of_a_folder_and_its_subfolders(
    pipeline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.md").mkdir()
    for name in ("page.md", "picture.png", "folder.md/notes.txt"):
        (tmp_path / name).write_text("text")
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--docs", str(tmp_path)])

    found = [path.relative_to(tmp_path).as_posix() for path in pipeline.arguments().files]

    assert found == ["folder.md/notes.txt", "page.md"]


def test_a_source_is_the_passage_that_holds_the_answer(pipeline: ModuleType) -> None:
    near = pipeline.Passage("The port of the lamp.", "docs/lamp.md", "Lamp", 1)
    right = pipeline.Passage("It listens on 7000.", "docs/pump.md", "Pump", 3)

    assert pipeline.Question("?", [near, right], "7000").source() is right
    assert pipeline.Question("?", [near, right], "I don't know.").source() is None


def test_every_question_has_an_expected_answer_that_the_documents_hold(pipeline: ModuleType) -> None:
    expected = [json.loads(line) for line in (PROJECT / "tests" / "expected.jsonl").read_text().splitlines()]

    assert [row["question"] for row in expected] == (PROJECT / "questions.txt").read_text().splitlines()
    for row in expected:
        for source in row["sources"]:
            assert any(re.search(row["answer"], p.text) for p in pipeline.split(PROJECT / source, PROJECT)), row
