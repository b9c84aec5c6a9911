"""How people put a question: frames around it, and the slips of fast typing."""

from __future__ import annotations

from training.draw import Draw

TOPIC_FRAMES = (
    "What is {t}?", "What's {t}?", "Tell me {t}.", "Give me {t}.", "{T}?", "{t}", "I need {t}.", "I need to know {t}.",
    "Do you know {t}?", "[Can|Could] you tell me {t}?", "Name {t}.", "Please [tell me|give|name|state] {t}.",
    "Say {t}.",
    "I am looking for {t}.", "I'm looking for {t}", "Remind me of {t}.", "What would be {t}?", "Let me know {t}.",
    "[Show|Find] {t}.", "I forgot {t}.", "What about {t}?", "[Any idea|Any clue] what {t} is?", "what is {t}",
    "I would like to know {t}.", "Which is {t}?", "I wonder what {t} is.", "[And|So] what is {t}?",
    "Can I ask you for {t}?",
    "Where do I find {t}?", "Write down {t}.", "Look up {t}.", "Have you got {t}?", "{T}, please.", "{T} is what?",
)  # fmt: skip
QUESTION_FRAMES = (
    "Please tell me: {q}", "[Hi|Hey|Hello], {q}", "{Q} Please answer briefly.", "Quick question: {q}", "{Q} Thanks!",
    "I have a question. {Q}", "[So|And|Now|Ok], {q}", "{Q} Answer in a few words.", "Tell me, {q}", "Question: {Q}",
    "I am new here. {Q}", "I forgot: {q}", "Do you know this? {Q}", "Sorry, {q}", "One more thing: {q}",
    "{Q} I can't find it.",
    "Help me: {q}", "[Excuse me|Say|Well], {q}", "{Q} [I need it for work|My boss wants to know|It is urgent].",
)  # fmt: skip
STOP_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "is",
        "does",
        "do",
        "i",
        "to",
        "for",
        "are",
        "what",
        "which",
        "how",
        "can",
        "my",
        "that",
        "you",
        "it",
        "in",
        "on",
        "with",
        "at",
        "and",
    ]
)


def _typo(draw: Draw, text: str) -> str:
    """One slip in one longer lower-case word."""
    parts = text.split(" ")
    places = [index for index, part in enumerate(parts) if len(part) > 4 and part.isalpha() and part.islower()]
    if not places:
        return text
    at = draw.pick(places)
    part = parts[at]
    i = draw.number(1, len(part) - 2)
    parts[at] = draw.pick(
        (
            part[:i] + part[i + 1 :],
            part[:i] + part[i + 1] + part[i] + part[i + 2 :],
            part[:i] + part[i : i + 1] + part[i:],
        )
    )
    return " ".join(parts)


def _telegraphic(text: str) -> str:
    """Only the words that carry meaning."""
    kept = [part for part in text.rstrip("?.!").split(" ") if part.lower() not in STOP_WORDS]
    return " ".join(kept) if len(kept) > 1 else text


def lower_first(text: str) -> str:
    """The text with a small first letter, unless it starts with code or an acronym."""
    return text if text[:1] == "`" or text[:2].isupper() or text[:2] == "I " else text[:1].lower() + text[1:]


def sloppy(draw: Draw, text: str) -> str:
    """The question as someone in a hurry types it, about four times in ten."""
    if draw.chance(0.6):
        return text
    roll = draw.rng.random()
    if roll < 0.30:
        text = text.rstrip("?.")
    elif roll < 0.62:
        text = lower_first(text) if draw.chance(0.5) else text.lower()
        text = text.rstrip("?.") if draw.chance(0.6) else text
    elif roll < 0.74:
        text = _typo(draw, text)
    elif roll < 0.86:
        text = _telegraphic(text)
        text = text + "?" if draw.chance(0.5) else text.lower()
    elif roll < 0.90:
        text = text.rstrip("?.") + draw.pick(("??", "?!", " ?", "...", "!"))
    elif roll < 0.93:
        text = text.upper() if len(text) < 60 else text
    else:
        text = text.replace("What is", "Whats").replace("I am", "im").replace("you", "u").replace("please", "pls")
    return text


def ask_topic(draw: Draw, topic: str) -> str:
    """A question made from a noun phrase."""
    frame = draw.phrase(TOPIC_FRAMES)
    return frame.format(t=topic, T=topic[:1].upper() + topic[1:])


def ask(draw: Draw, question: str, topic: str) -> str:
    """A question in one of its many shapes: as given or through its topic, framed, sloppy."""
    text = ask_topic(draw, topic) if draw.chance(0.3) else question
    if draw.chance(0.13):
        text = draw.phrase(QUESTION_FRAMES).format(q=lower_first(text), Q=text)
    return sloppy(draw, text)
