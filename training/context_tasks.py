"""Reading tasks: random facts in a context, questions about them, and questions that it does not answer."""

from __future__ import annotations

from training import lexicon, wording
from training.draw import Draw
from training.example import SYSTEM_PROMPT, UNKNOWN, Example, dialogue
from training.filler import filler, surround
from training.relations import Record, question, random_record, statement, topic

SYSTEMS = (
    SYSTEM_PROMPT, "Use the context to answer.", "You are a helpful assistant.", "Answer from the text only.",
    "Answer the question using the context below. If you cannot, say: I don't know.",
    "You answer questions about documents.",
)  # fmt: skip
FRAMES = (
    "Context:\n{c}\n\n{q}", "{c}\n\n{q}", "{c}\n{q}", "Read this: {c} {q}", "Text: {c}\n\nQuestion: {q}", "{q}\n\n{c}",
    "Given that:\n{c}\n\n{q}", "Here is what I know:\n{c}\n\nQ: {q}", "{c} {q}", "Question: {q}\nContext: {c}",
    "Documents:\n{c}\n\nQuestion: {q}\nAnswer:", "Facts:\n{c}\n\n{q}", "\"{c}\"\n\n{q}", "Context: {c}\nQuestion: {q}",
)  # fmt: skip
PRODUCT_FRAME = "Context:\n{c}\n\nQuestion: {q}"


def records(draw: Draw, count: int) -> list[Record]:
    """Facts of which some are near misses of each other; no two share a question."""
    found: list[Record] = []
    keys: set[tuple[str, ...]] = set()
    for _ in range(count * 4):
        like = draw.pick(found) if found and draw.chance(0.45) else None
        record = random_record(draw, like=like)
        if record.key not in keys:
            keys.add(record.key)
            found.append(record)
        if len(found) == count:
            break
    return found


def chunks(draw: Draw, sentences: list[str], limit: int) -> str:
    """The context as a retriever gives it: numbered chunks of at most about ``limit`` characters."""
    groups: list[list[str]] = [[] for _ in range(3 if draw.chance(0.8) else draw.number(1, 5))]
    for sentence in sentences:
        draw.pick(groups).append(sentence)
    style = draw.pick(("[{}] ", "[{}] ", "[{}] ", "[{}] ", "({}) ", "{}. ", "Source {}: "))
    lines = [style.format(i) + surround(draw, group or [filler(draw)], limit) for i, group in enumerate(groups, 1)]
    return "\n".join(lines)


def layout(draw: Draw, sentences: list[str], limit: int) -> str:
    """The context in one of several layouts; ``limit`` bounds each chunk or the whole text, in characters."""
    roll = draw.rng.random()
    if roll < 0.5:
        return chunks(draw, sentences, limit)
    if roll < 0.62:
        return "\n".join(draw.pick(("- ", "* ", "• ")) + sentence for sentence in sentences)
    if roll < 0.72:
        return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))
    if roll < 0.8:
        return "\n".join(sentences)
    return surround(draw, sentences, limit * 2)


def framed(draw: Draw, context: str, first: str) -> tuple[str, str]:
    """System prompt (may be empty) and first user message: half the time exactly as the product words them."""
    if draw.chance(0.55):
        return SYSTEM_PROMPT, PRODUCT_FRAME.format(c=context, q=first)
    system = draw.pick(SYSTEMS) if draw.chance(0.5) else ""
    if system and draw.chance(0.1):
        return f"{system}\n\n{context}", first
    return system, draw.pick(FRAMES).format(c=context, q=first)


def ask_record(draw: Draw, record: Record) -> str:
    """A question about the record in one of its shapes."""
    return wording.ask(draw, question(draw, record), topic(draw, record))


def context_example(draw: Draw, facts: int, turns: int, limit: int, unknown: float, near: float = 0.6) -> Example:
    """A context of so many facts and so many questions; a share ``unknown`` of them has no answer there.

    Of those, a share ``near`` asks for something close to what the context tells.
    """
    known = records(draw, facts)
    order = list(known)
    draw.rng.shuffle(order)
    context = layout(draw, [statement(draw, record) for record in order], limit)
    pairs: list[tuple[str, str]] = []
    left = list(known)
    for _ in range(min(turns, facts + 1) if unknown else min(turns, len(known))):
        if draw.chance(unknown) or not left:
            pairs.append((ask_record(draw, absent(draw, known, context, near)), UNKNOWN))
        else:
            record = left.pop(draw.number(0, len(left) - 1))
            pairs.append((ask_record(draw, record), record.value))
    system, first = framed(draw, context, pairs[0][0])
    return dialogue("context", [(first, pairs[0][1]), *pairs[1:]], system)


def absent(draw: Draw, known: list[Record], context: str, near: float) -> Record:
    """A fact that the context does not tell, with the chance ``near`` close to one that it does."""
    keys = {record.key for record in known}
    for _ in range(20):
        record = random_record(draw, like=draw.pick(known) if draw.chance(near) else None)
        if record.key not in keys and not _ambiguous(record, context):
            return record
    return random_record(draw)


def _ambiguous(record: Record, context: str) -> bool:
    """True where a bare entity or object stands in the context with the same verb, so that an answer might be there."""
    slots = dict(record.slots)
    if "o" in slots:
        return slots["o"] in context and any(slots[form] in context for form in ("base", "s", "ing", "pp"))
    return record.relation.name in ("definition", "purpose", "made-with", "needs", "list") and slots["e"] in context


def lookup_example(draw: Draw) -> Example:
    """The simplest reading: "key: value" lines with invented keys, several asked."""
    kinds = (lexicon.stem, lexicon.name, lexicon.integer, lexicon.word, lexicon.command)
    pairs = {lexicon.stem(draw): draw.pick(kinds)(draw) for _ in range(draw.number(2, 10))}
    joint = draw.pick((": ", " = ", " is ", " -> ", " has "))
    text = draw.pick(("\n", "; ", ". ")).join(f"{key}{joint}{value}" for key, value in pairs.items())
    keys = draw.rng.sample(list(pairs), min(len(pairs), draw.number(2, 6)))
    frame = draw.pick(("What is {}?", "{}", "{}?", "Which is {}?"))
    asked = [(frame.format(key), pairs[key]) for key in keys]
    return dialogue("lookup", [(f"{text}\n{asked[0][0]}", asked[0][1]), *asked[1:]])
