"""Other words in a whole question: swaps that keep its meaning, for questions that stand as fixed strings."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

from training.draw import Draw

GOALS = (
    "I want to {g}. [How?|What do I type?|How do I do that?|What do I need?|Which command?]", "I'd like to {g}, how?",
    "My task is to {g}.",
    "[Today|Now|Next] I have to {g}. [How?|What do I do?|With what?]", "[Help|Please help] me to {g}.",
    "Someone asked me to {g}. How?",
    "If I want to {g}, what do I do?", "I am trying to {g}. [Any advice?|What is right?]",
    "Is it possible to {g}? How?",
)  # fmt: skip
NEEDS = (
    ("My [script|program|colleague|boss|editor|config file|admin|tool|teacher] "
     "[needs|asks for|wants|wants to know] {t}. [What is it?|Can you help?||What do I say?]"),
    "I [must|have to|should] [fill in|enter|write down|know|look up] {t}. [What is it?|Please help.||What do I put?]",
    "[A friend|A user|Somebody] asked me about {t}.", "[Yesterday|Once] I knew {t}. Now I forgot. What is it?",
    "In a [form|test|quiz|manual] I am asked for {t}.", "I read about {t}. What is it?", "{T} is what I need.",
    "I cannot find {t} anywhere.", "There must be something like {t}. What is it?",
    "Without {t} I cannot go on. Which is it?",
)  # fmt: skip


def situation(draw: Draw, topic: str) -> str:
    """A question as part of a small story, made from a noun phrase."""
    for head in ("the way to ", "the command to ", "the flag to "):
        if topic.startswith(head):
            return draw.phrase(GOALS).format(g=topic.removeprefix(head))
    return draw.phrase(NEEDS).format(t=topic, T=topic[:1].upper() + topic[1:])


@cache
def swaps() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Pattern and replacements, longest pattern first."""
    rows = tomllib.loads(Path(__file__).with_name("swaps.toml").read_text(encoding="utf-8"))
    longest_first = sorted(rows.items(), key=lambda row: -len(row[0]))
    return tuple((re.compile(rf"(?<![\w`.-]){re.escape(old)}(?![\w-])"), tuple(new)) for old, new in longest_first)


def rephrase(draw: Draw, text: str) -> str:
    """The question with one to three swaps, never inside backticks."""
    if "`" in text:
        return text
    options = [(pattern, new) for pattern, new in swaps() if pattern.search(text)]
    for pattern, new in draw.rng.sample(options, min(len(options), draw.number(1, 3))):
        choice = draw.pick(new)
        text = pattern.sub(lambda _, choice=choice: choice, text, count=1)  # type: ignore[misc]
    return text
