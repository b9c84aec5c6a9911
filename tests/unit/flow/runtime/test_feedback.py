"""Loops: they end when they are empty, and their records are part of checkpoints."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.checkpoint.jobs import Gated, Ledger

from sage.common.errors import PipelineError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.runtime import session
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.sink import SinkOperatorFactory

Config = dict[str, Any]


def collatz(start: int) -> list[int]:
    path = [start]
    while path[-1] != 1:
        path.append(path[-1] // 2 if path[-1] % 2 == 0 else 3 * path[-1] + 1)
    return path


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("chaining", [True, False])
def test_every_record_goes_round_as_often_as_it_must(parallelism: int, chaining: bool) -> None:
    env = LocalEnvironment("collatz", {"parallelism": parallelism, "chaining": chaining, "buffer.timeout": 0})
    again, seen = env.from_future("again"), list[int]()
    numbers = env.from_collection(range(1, 60)).union(again)
    numbers.sink(seen.append)
    numbers.filter(lambda n: n != 1).key_by(lambda n: n).map(lambda n: collatz(n)[1]).fill_future(again)
    env.submit()
    assert sorted(seen) == sorted(n for start in range(1, 60) for n in collatz(start))


def test_two_loops_one_inside_the_other() -> None:
    """The inner one counts down, the outer one begins anew with one less."""
    env, seen = LocalEnvironment("nested", {"chaining": False}), list[tuple[int, int]]()
    outer, inner = env.from_future("outer"), env.from_future("inner")
    pairs = env.from_collection([(3, 3)]).union(outer, inner)
    pairs.sink(seen.append)
    pairs.filter(lambda p: p[1] > 0).map(lambda p: (p[0], p[1] - 1)).fill_future(inner)
    pairs.filter(lambda p: p[1] == 0 and p[0] > 0).map(lambda p: (p[0] - 1, p[0] - 1)).fill_future(outer)
    env.submit()
    assert sorted(seen, reverse=True) == [(a, b) for a in range(3, -1, -1) for b in range(a, -1, -1)]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), max_size=30), st.booleans())
def test_nothing_is_lost_at_the_end(rounds: list[int], slow: bool) -> None:
    """Work in flight in another thread counts as being in the loop."""

    class Late(Operator):
        count = 0

        @property
        def pending(self) -> int:
            return self.count

        def process(self, batch: Any, port: int) -> None:
            for record in batch.records:
                self.count += 1
                threading.Timer(0.001 if slow else 0.0, self.context.mailbox, [lambda r=record: self.done(r)]).start()

        def done(self, record: int) -> None:
            self.count -= 1
            self.context.out.emit(record - 1)

    env, seen = LocalEnvironment("late", {}), list[int]()
    again = env.from_future("again")
    numbers = env.from_collection(rounds).union(again)
    numbers.sink(seen.append)
    numbers.filter(lambda n: n > 0)._operator("late", Late).fill_future(again)
    env.submit()
    assert sorted(seen) == sorted(k for n in rounds for k in range(n + 1))


def test_a_loop_that_never_ends_is_cancelled() -> None:
    env, turns = LocalEnvironment("endless", {}), list[int]()
    again = env.from_future("again")
    numbers = env.from_collection([1]).union(again)
    numbers.map(lambda n: n + 1).fill_future(again)
    numbers.sink(turns.append)
    handle = env.submit(block=False)
    deadline = time.monotonic() + 30
    while len(turns) < 100 and time.monotonic() < deadline:
        time.sleep(0.002)
    handle.cancel()
    assert handle.wait(30) == "cancelled"
    assert len(turns) >= 100


class TestCheckpoints:
    """Each number goes round `n % 5` times, then to a transactional sink."""

    NUMBERS = 600

    def start(
        self,
        home: Path,
        ledger: Ledger,
        *,
        restore: str | None = None,
        fails: int = 0,
        end: int = 10**9,
        pause: float = 0.0,
        **config: Any,
    ) -> Any:
        """Numbers from `end` on are held back; each turn takes `pause` seconds."""
        calls = 0

        def step(pair: tuple[int, int]) -> tuple[int, int]:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise RuntimeError("failed")
            time.sleep(pause)
            return pair[0], pair[1] + 1

        keys: Config = {"checkpoint.interval": "10ms", "restart.strategy": "fixed-delay", "restart.delay": 1}
        with session.use(session.Session(home=SageHome(home), restore=restore)):
            env = LocalEnvironment("loop", keys | {key.replace("_", "."): value for key, value in config.items()})
            spec = SourceSpec(SourceKind.CONNECTOR, True, Gated(self.NUMBERS, 4, 0.0005, [end]))
            numbers: Any = env._source(spec, "numbers", 1, Origin.of_caller())
            again = env.from_future("again")
            pairs = numbers.map(lambda n: (n, 0)).union(again).rebalance()
            pairs.filter(lambda p: p[1] < p[0] % 5).map(step).fill_future(again)
            factory: Any = SinkOperatorFactory(ledger)
            pairs.filter(lambda p: p[1] == p[0] % 5)._operator_sink("ledger", factory)
            return env.submit(block=False)

    def expected(self) -> list[tuple[int, int]]:
        return [(n, n % 5) for n in range(self.NUMBERS)]

    @pytest.mark.parametrize("unaligned", [False, True])
    def test_a_failure_loses_and_doubles_nothing(self, tmp_path: Path, unaligned: bool) -> None:
        ledger = Ledger()
        handle = self.start(tmp_path, ledger, fails=800, checkpoint_unaligned=unaligned)
        assert handle.wait(60) == "finished"
        assert handle.restarts == 1
        assert sorted(ledger.committed) == self.expected()

    def test_a_savepoint_holds_what_is_on_its_way_back(self, tmp_path: Path) -> None:
        ledger, place = Ledger(), None
        for stop_at, end in ((50, 250), (250, 450)):  # some have to go round still, most of them in the queue
            handle = self.start(tmp_path, ledger, restore=place, end=end, pause=0.001)
            deadline = time.monotonic() + 30
            while len(ledger.committed) < stop_at and time.monotonic() < deadline:
                time.sleep(0.002)
            place = handle.stop_with_savepoint(timeout=30)
        handle = self.start(tmp_path, ledger, restore=place)
        assert handle.wait(60) == "finished"
        assert sorted(ledger.committed) == self.expected()


def test_explain_shows_the_way_back() -> None:
    env = LocalEnvironment("loop", {"chaining": False})
    again = env.from_future("again")
    env.from_collection([1]).union(again).map(lambda n: n - 1).fill_future(again)
    text = env.explain()
    assert "task 1 × 1  ← task 5 (feedback)" in text
    assert json.loads(env.explain(format="json"))["feedback"] == [{"source": 4, "target": 0}]
    assert '-. "feedback" .->' in env.explain(format="mermaid")


def test_mistakes_are_told() -> None:
    env = LocalEnvironment("wrong", {})
    future = env.from_future("x")
    numbers = env.from_collection([1])
    with pytest.raises(PipelineError, match="two futures 'x'"):
        env.from_future("x")
    with pytest.raises(PipelineError, match="needs a future"):
        numbers.fill_future(numbers)
    future.sink(print)
    with pytest.raises(PipelineError, match="Nothing fills the future 'x'"):
        env.submit()
    numbers.fill_future(future)
    with pytest.raises(PipelineError, match="filled twice"):
        numbers.fill_future(future)
