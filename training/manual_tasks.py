"""Questions about SAGE as users put them, from memory and from chunks of a manual.

Later than ``sage_tasks``: wordings are swapped, chunks hold facts of one page side by side, and chunks are cut in the
middle of sentences as a splitter cuts them.
"""

from __future__ import annotations

from training import skills
from training.context_tasks import framed, records
from training.draw import Draw
from training.example import UNKNOWN, Example, dialogue
from training.facts import Fact, load_facts, more_questions
from training.filler import filler
from training.prose import PREFIXES
from training.relations import statement
from training.rephrase import rephrase, situation
from training.sage_tasks import PLAIN_SYSTEMS, changed
from training.wording import ask, lower_first, sloppy


def ask_varied(draw: Draw, fact: Fact) -> str:
    """A question about the fact, its words swapped half the time."""
    topic = draw.wording(fact.topics)
    roll = draw.rng.random()
    if roll < 0.42 and fact.key in more_questions():
        return sloppy(draw, rephrase(draw, draw.wording(more_questions()[fact.key])))
    if roll < 0.52:
        return sloppy(draw, situation(draw, topic))
    question = draw.wording(fact.questions)
    if draw.chance(0.5):
        question, topic = rephrase(draw, question), rephrase(draw, topic)
    return ask(draw, question, topic)


def from_memory(draw: Draw) -> Example:
    """One to four facts asked without a context, now and then among greetings and unknowable questions."""
    pairs = [(ask_varied(draw, fact), fact.answer) for fact in draw.rng.sample(load_facts(), draw.number(1, 4))]
    if draw.chance(0.12):
        other = draw.pick((skills.greeting, skills.unknowable))(draw)
        pairs.insert(0, (other.turns[0].text, other.turns[1].text))
    return dialogue("sage", pairs, draw.pick(PLAIN_SYSTEMS) if draw.chance(0.15) else "")


def near(draw: Draw, fact: Fact, count: int) -> list[Fact]:
    """Facts that a retriever would bring along: of the same page, or with words in common."""
    words = set(fact.key.split("-")) | set(fact.topics[0].split())
    others = [f for f in load_facts() if f.key != fact.key]
    close = [f for f in others if f.page == fact.page or words & set(f.key.split("-"))]
    pool = close if draw.chance(0.75) and len(close) >= count else others
    return draw.rng.sample(pool, count)


def _cut(draw: Draw, text: str) -> str:
    """The text with half a sentence before or after it, as where a splitter cuts."""
    if draw.chance(0.2):
        parts = filler(draw).split(" ")
        text = " ".join(parts[len(parts) // 2 :]) + " " + text
    if draw.chance(0.2):
        parts = filler(draw).split(" ")
        text = text + " " + " ".join(parts[: len(parts) // 2])
    return text


def manual_chunks(draw: Draw, sentences: list[str], limit: int) -> str:
    """Three chunks (seldom more or fewer) with these sentences, filler between them and headings."""
    groups: list[list[str]] = [[] for _ in range(3 if draw.chance(0.85) else draw.number(1, 4))]
    for sentence in sentences:
        text = sentence
        if draw.chance(0.12) and text.startswith(("The ", "To ", "By ", "A ", "It ")):
            text = draw.expand(draw.pick(PREFIXES)) + lower_first(text)
        draw.pick(groups).append(text)
    texts = []
    for group in groups:
        parts = group or [filler(draw)]
        while sum(map(len, parts)) < limit and draw.chance(0.7):
            extra = statement(draw, records(draw, 1)[0]) if draw.chance(0.1) else filler(draw)
            parts.insert(draw.number(0, len(parts)), extra)
        text = _cut(draw, draw.pick((" ", " ", " ", "\n", "\n\n", "\n- ")).join(parts))
        if draw.chance(0.3):
            mark = draw.pick(("# ", "## ", "### "))
            text = f"{mark}{draw.pick(load_facts()).page.replace('-', ' ').capitalize()}\n\n{text}"
        texts.append(text)
    return "\n".join(f"[{i}] {text}" for i, text in enumerate(texts, 1))


def from_manual(draw: Draw, turns: int, limit: int, unknown: float, skill: str = "manual") -> Example:
    """Chunks of a manual and questions about them; a share ``unknown`` is about facts that the chunks lack."""
    first = draw.pick(load_facts())
    facts = [first, *near(draw, first, draw.number(1, 5))]
    told = {fact.key: changed(draw, fact) for fact in facts}
    lacking = {fact.key for fact in facts if draw.chance(unknown)}
    sentences = [told[fact.key][0] for fact in facts if fact.key not in lacking]
    draw.rng.shuffle(sentences)
    context = manual_chunks(draw, sentences, limit)
    pairs: list[tuple[str, str]] = []
    for fact in facts[:turns]:
        if fact.key not in lacking:
            pairs.append((ask_varied(draw, fact), told[fact.key][1]))
        elif fact.answer not in context:
            pairs.append((ask_varied(draw, fact), UNKNOWN))
    if not pairs:
        return from_manual(draw, turns, limit, unknown, skill)
    draw.rng.shuffle(pairs)
    system, opening = framed(draw, context, pairs[0][0])
    return dialogue(skill, [(opening, pairs[0][1]), *pairs[1:]], system)
