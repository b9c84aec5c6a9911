"""The manual states what the built-in model is taught, where retrieval can find it."""

from __future__ import annotations

import json
import re
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from training.facts import Fact, load_facts, more_questions

from sage.common.components.sage_embedding import EmbeddingFactory

ROOT = Path(__file__).parents[3]
MANUAL = ROOT / "docs" / "manual"
TEMPLATE = ROOT / "templates" / "sage" / "templates" / "llm-pipeline"


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    spec = util.spec_from_file_location("template_pipeline", TEMPLATE / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["template_pipeline"] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


@pytest.mark.parametrize("fact", load_facts(), ids=lambda fact: fact.key)
def test_a_passage_of_the_right_page_holds_the_whole_statement(pipeline: ModuleType, fact: Fact) -> None:
    passages = pipeline.split(MANUAL / f"{fact.page}.md", MANUAL)

    assert any(fact.statement in passage.text for passage in passages), fact.statement


def test_the_manual_is_a_real_one() -> None:
    pages = sorted(MANUAL.glob("*.md"))

    assert len(pages) >= 10
    for page in pages:
        text = page.read_text()
        assert 40 <= len(text.splitlines()) <= 160, page.name
        assert text.startswith("# "), page.name
        assert "TODO" not in text, page.name


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in MANUAL.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+\.md)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} -> {target}"


def test_no_question_of_the_template_is_one_that_the_model_is_trained_on() -> None:
    questions = [question for fact in load_facts() for question in fact.questions]
    questions += [question for more in more_questions().values() for question in more]
    trained = [set(plain(question).split()) for question in questions]

    asked = [set(plain(line).split()) for line in (TEMPLATE / "questions.txt").read_text().splitlines()]

    assert len(asked) == 10
    for words in asked:
        nearest = max(trained, key=lambda other: len(words & other) / len(words | other))
        assert len(words & nearest) / len(words | nearest) < 0.7, (words, nearest)


def test_hash_retrieval_finds_the_right_passage_for_every_question(pipeline: ModuleType) -> None:
    passages = [passage for page in sorted(MANUAL.glob("*.md")) for passage in pipeline.split(page, MANUAL)]
    embedder = EmbeddingFactory.create("hash")
    vectors = [embedder.embed(f"{passage.heading}\n{passage.text}") for passage in passages]

    for line in (TEMPLATE / "tests" / "expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        asked = embedder.embed(row["question"])
        scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
        best = sorted(range(len(passages)), key=lambda at: -scores[at])[:3]
        found = [passages[at] for at in best if re.search(row["answer"], passages[at].text)]
        assert any(f"docs/{passage.source}" in row["sources"] for passage in found), row["question"]
