"""True facts about SAGE that the built-in model learns and that the manual states.

The data stands in ``facts.toml``. The first statement of a fact is its canonical sentence: the manual page named by
``page`` carries it. Every statement holds the answer as a literal span, so that a fact can be asked both from memory
and from a context. ``topics`` are noun phrases that fit "What is ...?" and "Tell me ..."; ``questions`` are whole
questions.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGES = (
    "getting-started", "llm", "gateway", "dataflow", "configuration", "dashboard", "embedding", "errors",
    "troubleshooting", "model",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: where the manual states it, how it may be said, how it may be asked, what to answer."""

    key: str
    page: str
    answer: str
    statements: tuple[str, ...]
    topics: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def statement(self) -> str:
        """The canonical sentence, as it stands in the manual."""
        return self.statements[0]


@cache
def more_questions() -> dict[str, tuple[str, ...]]:
    """Further questions by key, in everyday words (``facts_more.toml``)."""
    rows = tomllib.loads(Path(__file__).with_name("facts_more.toml").read_text(encoding="utf-8"))
    unknown = set(rows) - {fact.key for fact in load_facts()}
    if unknown:
        raise ValueError(f"questions about no fact: {sorted(unknown)}")
    return {key: tuple(questions) for key, questions in rows.items()}


@cache
def load_facts() -> tuple[Fact, ...]:
    """All facts in file order; raises ValueError where one breaks this module's contract."""
    rows = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))["fact"]
    facts = tuple(
        Fact(
            key=row["key"],
            page=row["page"],
            answer=row["answer"],
            statements=tuple(row["statements"]),
            topics=tuple(row["topics"]),
            questions=tuple(row["questions"]),
        )
        for row in rows
    )
    for fact in facts:
        _check(fact)
    if len({fact.key for fact in facts}) != len(facts):
        raise ValueError("two facts share a key")
    return facts


def _check(fact: Fact) -> None:
    """Raise ValueError where a fact's page is unknown or a statement does not hold the answer."""
    if fact.page not in PAGES:
        raise ValueError(f"{fact.key}: no such page: {fact.page}")
    for statement in fact.statements:
        if fact.answer not in statement:
            raise ValueError(f"{fact.key}: {fact.answer!r} is not in {statement!r}")
    if not fact.topics or not fact.questions:
        raise ValueError(f"{fact.key}: a fact needs topics and questions")
