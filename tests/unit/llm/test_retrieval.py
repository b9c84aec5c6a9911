"""The hash embedding as the demo uses it: find the manual's passage that answers a question."""

import functools
import json
import pathlib
import re

import numpy as np
import pytest
from training.facts import load_facts

from sage.common.components.sage_embedding import HashEmbedding

ROOT = pathlib.Path(__file__).parents[3]
MANUAL = ROOT / "docs" / "manual"
PASSAGE = 240


def passages() -> list[str]:
    """The manual in pieces of at most 240 characters, each under its heading."""
    found: list[str] = []
    for page in sorted(MANUAL.glob("*.md")):
        heading = page.stem
        for block in re.split(r"\n\s*\n", page.read_text(encoding="utf-8")):
            if block.startswith("#"):
                heading = block.splitlines()[0].strip("# ")
                continue
            text = ""
            for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(block.split())):
                if text and len(text) + len(sentence) >= PASSAGE:
                    found.append(f"{heading}\n{text}")
                    text = ""
                text = f"{text} {sentence}".strip()[:PASSAGE]
            found.append(f"{heading}\n{text}")
    return found


@functools.cache
def manual() -> tuple[list[str], "np.typing.NDArray[np.float32]"]:
    """The passages and their vectors."""
    texts = passages()
    return texts, HashEmbedding().embed_array(texts)


def ranks(questions: list[str]) -> list[list[str]]:
    """For each question the passages, nearest first."""
    texts, vectors = manual()
    order = np.argsort(-HashEmbedding().embed_array(questions) @ vectors.T, axis=1, kind="stable")
    return [[texts[at] for at in row] for row in order]


@pytest.mark.spec("E10", "S4")
def test_the_templates_questions_find_their_answers() -> None:
    folder = ROOT / "templates" / "sage" / "templates" / "llm-pipeline" / "tests"
    cases = [json.loads(line) for line in (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines() if line]
    assert len(passages()) > 150
    found = [
        any(re.search(case["answer"], passage) for passage in ranked[:3])
        for case, ranked in zip(cases, ranks([case["question"] for case in cases]), strict=True)
    ]
    assert sum(found) >= 0.9 * len(found), [case["question"] for case, ok in zip(cases, found, strict=True) if not ok]


@pytest.mark.spec("E10")
def test_plain_questions_about_each_fact_find_its_sentence() -> None:
    """The first wording of every fact's question, against the manual's own sentence or another with the answer."""
    facts = load_facts()
    places: list[int] = []
    for fact, ranked in zip(facts, ranks([fact.questions[0] for fact in facts]), strict=True):
        right = [
            any(statement in passage for statement in fact.statements)
            or (len(fact.answer) >= 4 and fact.answer in passage)
            for passage in ranked[:3]
        ]
        places.append(right.index(True) if any(right) else 3)
    first, third = np.mean([place == 0 for place in places]), np.mean([place < 3 for place in places])
    assert third >= 0.85, f"recall@3 {third:.2f}"
    assert first >= 0.6, f"recall@1 {first:.2f}"
    print(f"recall@1 {first:.3f} recall@3 {third:.3f}")
