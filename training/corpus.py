"""The corpus: which tasks are drawn in which phase, by a stable seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from training import context_tasks, manual_tasks, prose, sage_tasks, skills
from training.draw import Draw
from training.example import Example


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the tasks and how hard reading is: facts in a context, characters a chunk, questions, unknowns.

    ``near`` is the share of unknowns that ask for something close to what the context tells.
    """

    weights: tuple[tuple[str, float], ...]
    facts: tuple[int, int] = (1, 8)
    limits: tuple[int, ...] = (60, 120, 240)
    turns: tuple[int, int] = (1, 4)
    unknown: float = 0.22
    near: float = 0.6


def _reading(draw: Draw, mix: Mix) -> Example:
    facts = draw.number(*mix.facts)
    return context_tasks.context_example(
        draw, facts, draw.number(*mix.turns), draw.pick(mix.limits), mix.unknown, mix.near
    )


def _sage_reading(draw: Draw, mix: Mix) -> Example:
    return sage_tasks.from_context(draw, draw.number(*mix.turns), draw.pick(mix.limits), mix.unknown)


TASKS: dict[str, Callable[[Draw, Mix], Example]] = {
    "context": _reading,
    "sage-context": _sage_reading,
    "prose": lambda draw, mix: prose.prose_example(
        draw, draw.number(1, 4), draw.number(*mix.turns), draw.pick(mix.limits), mix.unknown, mix.near
    ),
    "manual": lambda draw, mix: manual_tasks.from_manual(
        draw, draw.number(*mix.turns), draw.pick(mix.limits), mix.unknown
    ),
    "memory": lambda draw, mix: manual_tasks.from_memory(draw),
    "lookup": lambda draw, mix: context_tasks.lookup_example(draw),
    "sage": lambda draw, mix: sage_tasks.closed_book(draw),
    "text": lambda draw, mix: sage_tasks.told(draw),
    "greeting": lambda draw, mix: skills.greeting(draw),
    "unknowable": lambda draw, mix: skills.unknowable(draw),
    "echo": lambda draw, mix: skills.echo(draw),
    "sort": lambda draw, mix: skills.sort_items(draw),
    "classify": lambda draw, mix: skills.classify(draw),
    "json": lambda draw, mix: skills.extract(draw),
}

WARM_UP = Mix(
    weights=(("lookup", 5), ("echo", 2), ("context", 2), ("sage", 1)),
    facts=(1, 3), limits=(20,), turns=(2, 4), unknown=0.1,
)  # fmt: skip
EASY = Mix(
    weights=(("context", 6), ("lookup", 1.5), ("sage", 1.5), ("sage-context", 1), ("echo", 0.6)),
    facts=(1, 5), limits=(20, 60), turns=(2, 5),
)  # fmt: skip
BROAD = Mix(
    weights=(
        ("context", 6), ("sage-context", 1.6), ("sage", 2.2), ("lookup", 0.4), ("echo", 0.5), ("unknowable", 0.5),
        ("greeting", 0.15), ("classify", 0.3), ("json", 0.5), ("sort", 0.3), ("text", 0.15),
    ),
    facts=(1, 8), limits=(20, 60, 120, 240), turns=(1, 5),
)  # fmt: skip

PROSE = Mix(
    weights=(
        ("prose", 4), ("context", 3), ("manual", 2.2), ("memory", 2.2), ("lookup", 0.2), ("echo", 0.4),
        ("unknowable", 0.5),
        ("greeting", 0.12), ("classify", 0.25), ("json", 0.45), ("sort", 0.25), ("text", 0.15),
    ),
    facts=(1, 8), limits=(40, 100, 160, 240), turns=(1, 4),
)  # fmt: skip
MANY = replace(PROSE, facts=(2, 8), turns=(2, 6))
COMPACT = replace(PROSE, facts=(2, 8), turns=(3, 7), limits=(20, 20, 60, 120), unknown=0.15, near=0.2)
IN_USE = Mix(
    weights=(
        ("prose", 3.5), ("context", 3), ("manual", 3.2), ("memory", 5), ("lookup", 0.2), ("echo", 0.3),
        ("unknowable", 0.6), ("greeting", 0.35), ("classify", 0.6), ("json", 0.6), ("text", 0.1),
    ),
    facts=(1, 8), limits=(20, 60, 160, 240), turns=(2, 5), unknown=0.18, near=0.25,
)  # fmt: skip


def draw_example(draw: Draw, mix: Mix) -> Example:
    """One example of the mix."""
    names, weights = zip(*mix.weights, strict=True)
    return TASKS[draw.rng.choices(names, weights)[0]](draw, mix)


def stream_seed(*place: int) -> random.Random:
    """A random source that depends on these numbers alone."""
    return random.Random(":".join(map(str, place)))
