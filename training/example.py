"""What a training or test item is."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_PROMPT = "Answer the question from the context. If the answer is not there, say: I don't know."
UNKNOWN = "I don't know."


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: role "system", "user", "assistant", or "text" for plain text without a chat."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation; the model is trained on its assistant turns (and on plain text)."""

    skill: str
    turns: tuple[Turn, ...]


def dialogue(skill: str, pairs: list[tuple[str, str]], system: str = "") -> Example:
    """An example from (user, assistant) pairs."""
    turns = [Turn("system", system)] if system else []
    for user, assistant in pairs:
        turns += [Turn("user", user), Turn("assistant", assistant)]
    return Example(skill, tuple(turns))
