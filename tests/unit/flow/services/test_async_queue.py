"""The order of async results: a model with hypothesis (Flink's ordered and unordered stream element queues)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.core.runtime.operators.async_queue import Call, CallQueue, OrderedQueue, UnorderedQueue

pytestmark = pytest.mark.spec("K2", "K4")

# None: a watermark comes; else the n-th call that is not done is done.
STEPS = st.lists(st.one_of(st.just("record"), st.just("watermark"), st.integers(0, 5)), max_size=60)


def played(queue: CallQueue, steps: list[Any]) -> tuple[list[Any], list[Any], list[Call]]:
    """What came in and out, numbered; at the end everything is done. Also the calls in the order of their ends."""
    came: list[Any] = []
    out: list[Any] = []
    open_calls: list[Call] = []
    ended: list[Call] = []

    def finish(call: Call) -> None:
        open_calls.remove(call)
        call.done = True
        ended.append(call)
        queue.completed(call)
        out.extend(item if isinstance(item, Call) else item[0] for item in queue.ready())

    for step in steps:
        if step == "record":
            call = Call(len(came), None, len(came))
            came.append(call)
            open_calls.append(call)
            queue.put(call)
        elif step == "watermark":
            came.append(len(came))
            if len(queue):
                queue.put_event(came[-1])
            else:
                out.append(came[-1])
        elif open_calls:
            finish(open_calls[step % len(open_calls)])
        assert queue.pending == sum(isinstance(item, Call) for item in came) - sum(
            isinstance(item, Call) for item in out
        )
        assert {id(call) for call in queue.calls()} == {id(c) for c in came if isinstance(c, Call)} - {
            id(c) for c in out if isinstance(c, Call)
        }
    while open_calls:
        finish(open_calls[-1])
    assert len(queue) == queue.pending == 0
    return came, out, ended


@given(STEPS)
def test_ordered_results_and_watermarks_come_out_as_they_came(steps: list[Any]) -> None:
    came, out, _ = played(OrderedQueue(), steps)
    assert out == came


@given(STEPS)
def test_unordered_results_pass_each_other_but_no_watermark(steps: list[Any]) -> None:
    came, out, ended = played(UnorderedQueue(), steps)
    assert len(out) == len(came)

    def segments(items: list[Any]) -> list[set[int]]:
        found: list[set[int]] = [set()]
        for item in items:
            if isinstance(item, Call):
                found[-1].add(id(item))
            else:
                found.append(set())
        return found

    assert segments(out) == segments(came)
    for segment in segments(came):
        inside = [call for call in out if isinstance(call, Call) and id(call) in segment]
        assert inside == [call for call in ended if id(call) in segment]


@given(STEPS)
def test_an_unordered_result_waits_only_for_what_is_in_front_of_its_watermark(steps: list[Any]) -> None:
    """Without watermarks a result goes on at once."""
    queue = UnorderedQueue()
    open_calls: list[Call] = []
    for step in steps:
        if isinstance(step, str):
            call = Call(0, None, 0)
            open_calls.append(call)
            queue.put(call)
        elif open_calls:
            call = open_calls.pop(step % len(open_calls))
            call.done = True
            queue.completed(call)
            assert list(queue.ready()) == [call]
