"""The tokens a second of every side in every scenario: all sides take turns, round after round."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.engine.models import Shape
from benchmarks.engine.peer import PeerFailedError, PeerProcess, Run
from benchmarks.engine.scenarios import Scenario
from benchmarks.engine.sides import SIDES, Side, model_for
from benchmarks.environments import EnvironmentUnavailableError


@dataclass(slots=True)
class Cell:
    """One side in one scenario: its runs, or why there are none."""

    scenario: Scenario
    runs: list[Run] = field(default_factory=list)
    failure: str = ""

    @property
    def rate(self) -> float:
        """Median tokens a second, 0 without a run."""
        return statistics.median(self.scenario.counted / run.wall for run in self.runs) if self.runs else 0.0

    @property
    def cpu_per_token(self) -> float:
        """Median processor seconds a token, 0 without a run."""
        return statistics.median(run.cpu / self.scenario.counted for run in self.runs) if self.runs else 0.0


@dataclass(slots=True)
class Entrant:
    """A side with its process, or with the reason why it has none. `note` is the type that it computes in."""

    side: Side
    process: PeerProcess | None = None
    note: str = ""
    load_s: float = 0.0
    failure: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario with its number of rounds; no new round begins after `seconds`, and at least one is done."""

    scenario: Scenario
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Table:
    """All results on one model."""

    shape: Shape
    scenarios: list[Scenario]
    entrants: list[Entrant]

    def rate(self, side: str, scenario: str) -> float:
        """Tokens a second, 0 where there is none."""
        for entrant in self.entrants:
            if entrant.side.name == side and scenario in entrant.cells:
                return entrant.cells[scenario].rate
        return 0.0


def measure(
    shape: Shape, plans: list[Plan], threads: int, *, between: Callable[[], object], sides: Iterable[Side] = SIDES
) -> Table:
    """Load every side, then run every plan round by round. `between` is called before each round."""
    entrants: list[Entrant] = []
    try:
        for side in sides:
            if shape.name in side.only:
                entrants.append(Entrant(side))
                _enter(entrants[-1], shape, threads)
        for plan in plans:
            _rounds(entrants, shape, plan, between)
    finally:
        for entrant in entrants:
            if entrant.process is not None:
                entrant.process.close()
    return Table(shape, [plan.scenario for plan in plans], entrants)


def _enter(entrant: Entrant, shape: Shape, threads: int) -> None:
    """Start and load; one short run, so that what a library does at its first call is behind it."""
    side = entrant.side
    _say(f"{shape.title}: loading {side.name}")
    try:
        model = model_for(side, shape)
        entrant.process = PeerProcess(f"{shape.title} {side.name}", side.environment, side.script)
        entrant.load_s, entrant.note = entrant.process.load(model=str(model), precision=side.precision, threads=threads)
        entrant.process.run([list(range(300, 332))], 2)
    except (EnvironmentUnavailableError, PeerFailedError) as error:
        _drop(entrant, str(error))


def _rounds(entrants: list[Entrant], shape: Shape, plan: Plan, between: Callable[[], object]) -> None:
    prompts = plan.scenario.prompts(shape)
    begun = time.monotonic()
    for number in range(plan.rounds):
        if number and time.monotonic() - begun > plan.seconds:
            break
        _say(f"{shape.title}: {plan.scenario.name}, round {number + 1}")
        between()
        for entrant in entrants:
            if entrant.process is not None and not (len(prompts) > 1 and shape.name in entrant.side.narrow):
                _turn(entrant, plan.scenario, prompts)


def _turn(entrant: Entrant, scenario: Scenario, prompts: list[list[int]]) -> None:
    assert entrant.process is not None
    cell = entrant.cells.setdefault(scenario.name, Cell(scenario))
    if cell.failure:
        return
    try:
        cell.runs.append(entrant.process.run(prompts, scenario.max_tokens))
    except PeerFailedError as error:
        cell.failure = str(error)
        if not error.alive:
            _drop(entrant, str(error))


def _drop(entrant: Entrant, reason: str) -> None:
    _say(f"{entrant.side.name}: {reason}")
    entrant.failure = reason
    if entrant.process is not None:
        entrant.process.close()
        entrant.process = None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
