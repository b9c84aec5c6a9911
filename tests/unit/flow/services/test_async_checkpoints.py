"""Async operators in checkpoints (SPEC K6): what is in flight is begun again, what is answered is not."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.api.function.call_origin import current_origin
from sage.core.api.job_handle import JobHandle
from sage.core.runtime import session

pytestmark = pytest.mark.spec("K6", "K9")


class Answers:
    """Answers numbers below a limit at once, and the others when the limit is raised; counts who asked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: Counter[int] = Counter()
        self.answered: set[int] = set()
        self.positions: dict[int, int] = {}

    async def __call__(self, number: int) -> int:
        origin = current_origin()
        assert origin is not None
        self.asked[number] += 1
        assert self.positions.setdefault(number, origin.position) == origin.position
        while number >= self.limit:  # noqa: ASYNC110 - raised by another thread
            await asyncio.sleep(0.002)
        self.answered.add(number)
        return number


def started(
    tmp_path: Path, answers: Answers, out: list[int], *, restore: str | None = None, ordered: bool = True, **config: Any
) -> JobHandle:
    with session.use(session.Session(home=SageHome(tmp_path / ".sage"), restore=restore)):
        env = LocalEnvironment("answers", {"checkpoint.interval": "1h", **config})
        env.from_collection(range(50)).async_map(answers, capacity=20, ordered=ordered).sink(out.append)
        return env.submit(block=False)


def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen within 10 s")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_job_goes_on_with_what_was_in_flight(tmp_path: Path, ordered: bool) -> None:
    first, out = Answers(10), []  # type: ignore[var-annotated]
    job = started(tmp_path, first, out, ordered=ordered)
    until(lambda: len(out) == 10 and len(first.asked) == 30)
    place = job.stop_with_savepoint(str(tmp_path / "point"))
    job.wait()
    assert sorted(out) == list(range(10))
    second, more = Answers(1000), []  # type: ignore[var-annotated]
    started(tmp_path, second, more, restore=str(place), ordered=ordered).wait()
    assert sorted(out + more) == list(range(50))
    assert not ordered or more == list(range(10, 50))
    assert set(second.asked) == set(range(10, 50))
    shared = set(first.positions) & set(second.positions)
    assert {n: first.positions[n] for n in shared} == {n: second.positions[n] for n in shared}


def test_answers_that_wait_for_their_turn_are_not_asked_for_again(tmp_path: Path) -> None:
    class FirstIsSlow(Answers):
        async def __call__(self, number: int) -> int:
            if number:
                return await super().__call__(number)
            self.asked[0] += 1
            while self.limit < 2000:  # noqa: ASYNC110 - raised by another thread
                await asyncio.sleep(0.002)
            return 0

    first, out = FirstIsSlow(1000), []  # type: ignore[var-annotated]
    job = started(tmp_path, first, out)
    until(lambda: len(first.answered) >= 19)
    place = job.stop_with_savepoint(str(tmp_path / "point"))
    job.wait()
    assert out == []
    second, more = FirstIsSlow(3000), []  # type: ignore[var-annotated]
    started(tmp_path, second, more, restore=str(place)).wait()
    assert more == list(range(50))
    assert not set(second.asked) & first.answered
    assert second.asked[0] == 1


def test_nothing_is_emitted_behind_the_last_barrier(tmp_path: Path) -> None:
    """Answers that come while the job stops belong to the run that goes on."""
    first, out = Answers(5), []  # type: ignore[var-annotated]
    job = started(tmp_path, first, out)
    until(lambda: len(out) == 5)
    taken = threading.Timer(0.0, lambda: setattr(first, "limit", 1000))
    taken.start()
    place = job.stop_with_savepoint(str(tmp_path / "point"))
    job.wait()
    second, more = Answers(1000), []  # type: ignore[var-annotated]
    started(tmp_path, second, more, restore=str(place)).wait()
    assert out + more == list(range(50))


def test_a_restart_makes_every_result_once_behind_the_checkpoint(tmp_path: Path) -> None:
    failing = {23}

    async def fails_once(number: int) -> int:
        await asyncio.sleep(0.001)
        if number in failing:
            failing.discard(number)
            raise RuntimeError("once")
        return number

    out: list[int] = []
    with session.use(session.Session(home=SageHome(tmp_path / ".sage"))):
        env = LocalEnvironment(
            "answers", {"checkpoint.interval": "5ms", "restart.strategy": "fixed-delay", "restart.delay": 1}
        )
        env.from_collection(range(60)).async_map(fails_once, capacity=4).write_text(
            str(tmp_path / "out"), exactly_once=True
        )
        job = env.submit()
    out = [int(line) for part in sorted((tmp_path / "out").iterdir()) for line in part.read_text().split()]
    assert job.restarts == 1
    assert sorted(out) == list(range(60))
