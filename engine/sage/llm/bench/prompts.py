"""Prompts of a wanted length, each its own text, the same again for the same seed."""

from __future__ import annotations

import random

_TEXT = (
    "the record engine stream answer model window table river night paper light water stone green small early number "
    "letter market open sign north winter field music house forest road summer bread silver garden bridge train island"
)
_WORDS = _TEXT.split()


class Prompts:
    """Makes texts of so many tokens. How many tokens a word has is learned from what the server says of each."""

    def __init__(self, shortest: int, longest: int, seed: int) -> None:
        self._range = (shortest, longest)
        self._draw = random.Random(seed)
        self._words = 0
        self._tokens = 0

    def next(self) -> str:
        """The next text."""
        wanted = self._draw.randint(*self._range)
        count = max(1, round(wanted / self.tokens_per_word))
        return " ".join(self._draw.choice(_WORDS) for _ in range(count))

    def short(self) -> str:
        """A few words to begin with, while nothing is known of the server's tokens."""
        return " ".join(self._draw.choice(_WORDS) for _ in range(min(16, self._range[0])))

    @property
    def tokens_per_word(self) -> float:
        return self._tokens / self._words if self._words else 1.0

    def learn(self, text: str, tokens: int) -> None:
        """Note how many tokens a text turned out to have; 0 where nobody counted them, and then nothing is learned."""
        if not tokens:
            return
        self._words += text.count(" ") + 1
        self._tokens += tokens
