"""The three loads, with the same prompts for everybody: random ids from a fixed seed, no two prompts alike."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.engine.models import Shape

_FIRST_ID = 300  # past the special tokens and the single bytes


@dataclass(frozen=True, slots=True)
class Scenario:
    """Prompts of these lengths at once, `max_tokens` new tokens each. `unit` says which tokens are counted."""

    name: str
    lengths: tuple[int, ...]
    max_tokens: int
    unit: str = "output tokens"

    @property
    def counted(self) -> int:
        """Tokens that the rate is made of: those of the prompt for prefill, else those that came out."""
        return sum(self.lengths) if self.unit == "prompt tokens" else len(self.lengths) * self.max_tokens

    def prompts(self, shape: Shape) -> list[list[int]]:
        """Token ids, the same at every call."""
        draw = random.Random(len(self.lengths))
        last = min(shape.vocabulary, 8192) - 1
        return [[draw.randint(_FIRST_ID, last) for _ in range(length)] for length in self.lengths]


def _spread(count: int, first: int, last: int) -> tuple[int, ...]:
    """`count` lengths from `first` to `last`, shuffled so that short ones are not all in front."""
    lengths = [first + (last - first) * index // (count - 1) for index in range(count)]
    random.Random(1).shuffle(lengths)
    return tuple(lengths)


PREFILL = Scenario("prefill 512", (512,), 1, "prompt tokens")
SIXTEEN = Scenario("16 at once", _spread(16, 32, 512), 64)


def one_stream(tokens: int) -> Scenario:
    """One short prompt, so that the rate is that of decoding."""
    return Scenario("one stream", (16,), tokens)
