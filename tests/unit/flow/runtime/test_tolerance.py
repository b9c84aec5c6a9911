"""Records at which a function raises, where the job goes on (`on_error`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.flow.runtime.harness import END, added, of, taken, untouched, wired
from tests.unit.flow.runtime.test_stages import Log

from sage.core.runtime.events import Batch
from sage.core.runtime.failure import RecordFailure


def run(build: Any, batch: Batch) -> tuple[list[Any], list[RecordFailure], Any, Any]:
    """What came out, what was told, the task's error and its operators."""
    told: list[RecordFailure] = []
    stream = build(untouched().rebalance())
    stream.rebalance().sink(lambda record: None)
    tasks, gates = wired(stream, on_error=told.append)
    gates[0].put(0, batch)
    gates[0].put(0, END)
    failed = tasks[1].run()
    out = [item for item in taken(gates[1]) if isinstance(item, Batch)]
    return out, told, failed, tasks[1].chain.operators


def halves(record: int) -> int:
    if record % 2:
        raise ValueError(f"{record} is odd")
    return record // 2


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50))
def test_the_others_go_on(records: list[int]) -> None:
    out, told, failed, operators = run(
        lambda stream: stream.map(lambda x: x + 1).map(halves, name="halves").map(lambda x: -x),
        of(*records, at=list(range(len(records)))),
    )
    even = [(record + 1, time) for time, record in enumerate(records) if record % 2]
    odd = [(record + 1, time) for time, record in enumerate(records) if not record % 2]
    assert failed is None
    assert [pair for b in out for pair in zip(b.records, b.timestamps or [], strict=True)] == [
        (-record // 2, time) for record, time in even
    ]
    assert [(one.record, one.timestamp) for one in told] == odd
    assert {one.operator for one in told} <= {"halves"}
    counts = [(operator.records_in, operator.records_out, operator.errors) for operator in operators]
    everything = len(records)
    assert counts == [
        (everything, everything, 0),
        (everything, len(even), len(odd)),
        (len(even), len(even), 0),
    ]


def test_an_operator_goes_on_behind_the_record() -> None:
    out, told, failed, operators = run(
        lambda stream: added(stream, lambda: Log([], lambda x: [x, halves(x)])), of(2, 3, 4, at=[1, 2, 3])
    )
    assert failed is None
    assert [(one.record, one.operator, str(one.error)) for one in told] == [(3, "operator", "3 is odd")]
    assert [record for batch in out for record in batch.records] == [2, 1, 4, 2, "last"]
    assert operators[0].records_in == 3


def test_a_failure_behind_an_operator_is_not_the_operators() -> None:
    out, told, failed, _ = run(
        lambda stream: added(stream, lambda: Log([], lambda x: [x, x])).map(
            lambda x: x if x == "last" else halves(x), name="halves"
        ),
        of(3, 4),
    )
    assert failed is None
    assert [one.operator for one in told] == ["halves", "halves"]
    assert [record for batch in out for record in batch.records] == [2, 2, "last"]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_record_without_a_key_is_left_out(parallelism: int) -> None:
    """Where the key is taken to choose a subtask, and where it is taken in front of a function."""
    out: list[int] = []
    told: list[RecordFailure] = []
    failed = None
    stream = untouched().env.from_collection([2, 3, 4, 6, 5])
    stream.key_by(halves).reduce(lambda a, b: a + b, parallelism=parallelism).sink(out.append, parallelism=1)
    tasks, _ = wired(stream, on_error=told.append)
    for task in tasks[1:]:
        failed = failed or task.run()
    assert failed is None
    assert sorted(out) == [2, 4, 6]
    assert [one.record for one in told] == [3, 5]
    assert [str(one.error) for one in told] == ["3 is odd", "5 is odd"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_is_no_error_of_a_record_ends_the_job(kind: type[BaseException]) -> None:
    def leave(record: Any) -> Any:
        raise kind

    _, told, failed, _ = run(lambda stream: stream.map(leave), of(1))
    assert failed is not None
    assert told == []
