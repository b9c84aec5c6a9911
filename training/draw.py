"""Seeded choices with a train/test split by stable hash.

A :class:`Draw` is a random source that knows which side of the split it serves. Invented names, values and wordings
are assigned to a side by a hash of their text alone, so the two sides never share one whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

HELD_OUT_PERCENT = 10
_ALTERNATION = re.compile(r"\[([^\[\]]*)\]")


def held_out(text: str) -> bool:
    """True where this text belongs to the test side (about one in ten)."""
    digest = hashlib.blake2s(text.lower().encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


@dataclass(frozen=True, slots=True)
class Draw:
    """A random source; ``new_names`` and ``new_wording`` say which side of the split each kind of text comes from."""

    rng: random.Random
    new_names: bool = False
    new_wording: bool = False

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, evenly."""
        return options[int(self.rng.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        """An integer between both ends, inclusive."""
        return low + int(self.rng.random() * (high - low + 1))

    def invent(self, make: Callable[[], str]) -> str:
        """Call ``make`` until its text lies on this draw's side of the split (at most 60 times)."""
        text = make()
        for _ in range(60):
            if held_out(text) == self.new_names:
                break
            text = make()
        return text

    def wording(self, templates: Sequence[str]) -> str:
        """A template of this side (any, where a side is empty), its alternations not yet expanded."""
        for _ in range(12):
            template = self.pick(templates)
            if held_out(template) == self.new_wording:
                return template
        side = [template for template in templates if held_out(template) == self.new_wording]
        return self.pick(side or templates)

    def expand(self, template: str) -> str:
        """Replace each ``[a|b|c]`` by one of its parts; they nest."""
        while (match := _ALTERNATION.search(template)) is not None:
            choice = self.pick(match.group(1).split("|"))
            template = template[: match.start()] + choice + template[match.end() :]
        return template

    def phrase(self, templates: Sequence[str]) -> str:
        """A wording of this side with its alternations expanded."""
        return self.expand(self.wording(templates))
