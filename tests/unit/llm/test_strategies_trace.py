"""The policies on a recorded trace, in virtual time, in the queue that the gateway uses."""

import asyncio
import csv
import heapq
import pathlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from sage.llm.control_plane import AdmissionQueue, AdmissionRefused
from sage.llm.control_plane.strategies import SchedulingPolicy, Ticket, create_policy, policy_names

TRACE = pathlib.Path(__file__).parent / "traces" / "skewed.csv"
PLACES = 4


@dataclass(slots=True)
class Line:
    """A request of the trace and what became of it."""

    ticket: Ticket
    began: float | None = None
    refused: bool = False

    @property
    def in_time(self) -> bool:
        assert self.ticket.deadline is not None
        return self.began is not None and self.began <= self.ticket.deadline


def trace(deadlines: bool) -> list[Line]:
    """The recorded requests; with deadlines the small ones are somebody waiting, the large ones have more time."""
    lines = []
    with TRACE.open() as file:
        for row in csv.DictReader(file):
            arrived, tokens = float(row["seconds"]), int(row["prompt_tokens"]) + int(row["answer_tokens"])
            deadline = arrived + (0.5 if tokens < 250 else 4.0) if deadlines else None
            lines.append(Line(Ticket(key=row["key"], tokens=tokens, arrived=arrived, deadline=deadline)))
    return lines


def tokens_of(lines: list[Line]) -> int:
    return sum(line.ticket.tokens for line in lines)


class Replay:
    """Plays a trace against one engine of PLACES places that together make `rate` tokens a second."""

    def __init__(self, lines: list[Line], policy: Callable[[Callable[[], float]], SchedulingPolicy], rate: float):
        self.now = 0.0
        self.lines, self.rate = lines, rate
        self.queue = AdmissionQueue(PLACES, len(lines), lambda: self.now, policy(lambda: self.now))
        self.most_running = 0
        self._ends: list[tuple[float, int, Line, float]] = []
        self._number = count()

    async def _serve(self, line: Line) -> None:
        try:
            admitted = await self.queue.acquire(line.ticket)
        except AdmissionRefused:
            line.refused = True
            return
        line.began = self.now
        self.most_running = max(self.most_running, self.queue.running)
        end = self.now + line.ticket.tokens * PLACES / self.rate
        heapq.heappush(self._ends, (end, next(self._number), line, admitted))

    async def run(self) -> None:
        """Play everything to its end."""
        coming, tasks = list(reversed(self.lines)), []
        while coming or self._ends:
            if coming and (not self._ends or coming[-1].ticket.arrived <= self._ends[0][0]):
                line = coming.pop()
                self.now = line.ticket.arrived
                tasks.append(asyncio.create_task(self._serve(line)))
            else:
                self.now, _, line, admitted = heapq.heappop(self._ends)
                self.queue.release(admitted, line.ticket)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)


def replayed(name: str, *, deadlines: bool, load: float) -> Replay:
    """Replay the trace where it brings `load` times the tokens that the engine can make."""
    lines = trace(deadlines)
    replay = Replay(lines, lambda clock: create_policy(name, clock), tokens_of(lines) / lines[-1].ticket.arrived / load)
    asyncio.run(replay.run())
    return replay


def attainment(replay: Replay) -> float:
    """The share of all requests, refused ones too, that began by their deadline."""
    return sum(line.in_time for line in replay.lines) / len(replay.lines)


def shares(replay: Replay) -> Counter[str]:
    """The tokens that each key was served between the first second and the last moment when all keys still waited."""
    began = {line.ticket.key: 0.0 for line in replay.lines}
    for line in replay.lines:
        assert line.began is not None
        began[line.ticket.key] = max(began[line.ticket.key], line.began)
    until = min(min(began.values()), replay.lines[-1].ticket.arrived)
    served: Counter[str] = Counter()
    for line in replay.lines:
        assert line.began is not None
        if 1.0 <= line.began < until:
            served[line.ticket.key] += line.ticket.tokens
    return served


@pytest.mark.spec("G3")
@pytest.mark.parametrize("name", policy_names())
def test_every_request_of_the_trace_is_answered_or_refused(name: str) -> None:
    replay = replayed(name, deadlines=True, load=1.5)
    assert all((line.began is None) == line.refused for line in replay.lines)
    assert replay.queue.outstanding == replay.queue.outstanding_tokens == 0
    assert replay.most_running == PLACES
    assert any(line.refused for line in replay.lines) == (name in ("slo_aware", "adaptive", "hybrid"))


@pytest.mark.spec("G3")
@pytest.mark.parametrize("load", [1.1, 1.3, 1.5])
def test_slo_aware_meets_more_deadlines_than_fifo(load: float) -> None:
    fifo, slo = (attainment(replayed(name, deadlines=True, load=load)) for name in ("fifo", "slo_aware"))
    print(f"load {load}: fifo {fifo:.3f}, slo_aware {slo:.3f}")
    assert slo > fifo


@pytest.mark.spec("G3")
def test_slo_aware_refuses_nobody_while_there_is_room() -> None:
    assert attainment(replayed("slo_aware", deadlines=True, load=0.9)) == 1.0


@pytest.mark.spec("G3")
def test_fair_gives_keys_equal_shares_under_a_skewed_load() -> None:
    ratio = {}
    for name in ("fifo", "fair"):
        served = shares(replayed(name, deadlines=False, load=3.0))
        assert len(served) == 4
        ratio[name] = max(served.values()) / min(served.values())
    print(ratio)
    assert ratio["fair"] <= 1.2
    assert ratio["fifo"] > 2, "the load is skewed"
