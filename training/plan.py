"""What the shipped weights were trained on, in order. ``training.train`` replays it from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from training.corpus import COMPACT, EASY, IN_USE, MANY, WARM_UP, Mix
from training.model import Shape

SEED = 1
WORKERS = 2
SHAPE = Shape()
COMMON_WORDS = 600
TOKENIZER_EXAMPLES = 20_000
MUON_LR = 0.02
ADAM_LR = 3e-3
RATE_POINTS = ((0, 0.0), (100, 1.0), (2000, 1.0), (2160, 0.5), (2856, 0.35), (3700, 0.28), (4850, 0.0))
"""(step, factor of the learning rate); between two points the factor is linear."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of steps over one mix; ``longest`` bounds a sequence, ``budget`` a micro-batch (tokens)."""

    name: str
    mix: Mix
    steps: int
    longest: int
    budget: int = 4608


PHASES = (
    Phase("warm-up", WARM_UP, 800, longest=192),
    Phase("easy", EASY, 800, longest=256),
    Phase("many questions", MANY, 1256, longest=480),
    Phase("compact", COMPACT, 360, longest=480),
    Phase("as in use", IN_USE, 1634, longest=480),
)


def total_steps() -> int:
    """Optimiser steps of the whole plan."""
    return sum(phase.steps for phase in PHASES)


def rate(step: int) -> float:
    """The learning rate's factor at this step."""
    for (start, low), (end, high) in pairwise(RATE_POINTS):
        if step < end:
            return max(0.002, low + (high - low) * (step + 1 - start) / (end - start))
    return 0.002


def position(step: int) -> tuple[int, int]:
    """Phase index and step within it."""
    for index, phase in enumerate(PHASES):
        if step < phase.steps:
            return index, step
        step -= phase.steps
    raise ValueError("step beyond the plan")
