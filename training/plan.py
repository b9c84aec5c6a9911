"""What the shipped weights were trained on, in order. ``training.train`` replays it from the seed."""

from __future__ import annotations

from dataclasses import dataclass

from training.corpus import EASY, PROSE, WARM_UP, Mix
from training.model import Shape

SEED = 1
WORKERS = 2
SHAPE = Shape()
COMMON_WORDS = 600
TOKENIZER_EXAMPLES = 20_000
MUON_LR = 0.02
ADAM_LR = 3e-3
WARMUP_STEPS = 100
DECAY_STEPS = 2000


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
    Phase("prose", PROSE, 4400, longest=480),
)


def total_steps() -> int:
    """Optimiser steps of the whole plan."""
    return sum(phase.steps for phase in PHASES)


def rate(step: int) -> float:
    """The learning rate's factor: linear warm-up, constant, linear decay (warm-up-stable-decay)."""
    left = total_steps() - step
    return min(1.0, (step + 1) / WARMUP_STEPS, max(left, 1) / DECAY_STEPS)


def position(step: int) -> tuple[int, int]:
    """Phase index and step within it."""
    for index, phase in enumerate(PHASES):
        if step < phase.steps:
            return index, step
        step -= phase.steps
    raise ValueError("step beyond the plan")
