"""Tasks about SAGE itself: facts from memory, facts from a context, and facts that a context contradicts or lacks."""

from __future__ import annotations

from training import lexicon, wording
from training.context_tasks import chunks, framed, records
from training.draw import Draw
from training.example import UNKNOWN, Example, Turn, dialogue
from training.facts import Fact, load_facts
from training.relations import statement

PLAIN_SYSTEMS = ("You are a helpful assistant.", "You are SAGE's built-in model.", "Answer briefly.")


def ask_fact(draw: Draw, fact: Fact) -> str:
    """A question about the fact in one of its shapes."""
    return wording.ask(draw, draw.wording(fact.questions), draw.wording(fact.topics))


def closed_book(draw: Draw) -> Example:
    """One to four facts asked from memory."""
    facts = draw.rng.sample(load_facts(), draw.number(1, 4))
    system = draw.pick(PLAIN_SYSTEMS) if draw.chance(0.15) else ""
    return dialogue("sage", [(ask_fact(draw, fact), fact.answer) for fact in facts], system)


def _similar(text: str, answer: str) -> str:
    """A value shaped like the answer, to put in its place."""
    return "".join(str((int(c) + len(text)) % 10) if c.isdigit() else c for c in answer)


def changed(draw: Draw, fact: Fact) -> tuple[str, str]:
    """A statement and its answer, one in three with another value than the true one: the context has the last word."""
    said = draw.wording(fact.statements)
    if not draw.chance(0.35):
        return said, fact.answer
    if fact.answer.isdigit():
        value = lexicon.integer(draw)
    elif fact.answer.startswith("sage "):
        value = lexicon.command(draw)
    elif fact.answer.isupper():
        value = lexicon.variable(draw)
    elif fact.answer.startswith("--"):
        value = lexicon.flag(draw)
    elif fact.answer[:1] in "./" or fact.answer == "state.db":
        value = lexicon.path(draw)
    else:
        return said, fact.answer
    return said.replace(fact.answer, value), value


def from_context(draw: Draw, turns: int, limit: int, unknown: float) -> Example:
    """Chunks with facts about SAGE among random ones; questions about them, some of which the chunks do not answer."""
    facts = draw.rng.sample(load_facts(), draw.number(2, 5))
    told = {fact.key: changed(draw, fact) for fact in facts}
    sentences = [said for said, _ in told.values()] + [statement(draw, r) for r in records(draw, draw.number(0, 2))]
    draw.rng.shuffle(sentences)
    context = chunks(draw, sentences, limit)
    pairs: list[tuple[str, str]] = []
    left = list(facts)
    for _ in range(turns):
        if draw.chance(unknown) or not left:
            pairs.append((ask_fact(draw, _untold(draw, context)), UNKNOWN))
        else:
            fact = left.pop()
            pairs.append((ask_fact(draw, fact), told[fact.key][1]))
    system, first = framed(draw, context, pairs[0][0])
    return dialogue("sage-context", [(first, pairs[0][1]), *pairs[1:]], system)


def _untold(draw: Draw, context: str) -> Fact:
    """A fact whose answer and statements are not in the context."""
    facts = load_facts()
    for _ in range(30):
        fact = draw.pick(facts)
        shared = [said for said in fact.statements if said in context]
        if not shared and fact.answer not in context:
            return fact
    return facts[0]


def told(draw: Draw) -> Example:
    """A few statements as plain text, so that a bare prompt is continued sensibly."""
    facts = draw.rng.sample(load_facts(), 3)
    return Example("text", (Turn("text", " ".join(draw.wording(fact.statements) for fact in facts)),))
