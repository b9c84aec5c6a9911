"""The two phases of a sink, as its operator drives them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.flow.connectors.harness import ManualClock, visible

from sage.core.connectors.files.encoders import TextEncoder
from sage.core.connectors.files.parts import PartsSink
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.sink import SinkOperator, SinkOperatorFactory
from sage.core.state.operator_state import OperatorState

pytestmark = pytest.mark.spec("K6", "K10")


def opened(folder: Path, state: OperatorState) -> SinkOperator:
    function = SimpleNamespace(
        job="job", job_name="job", job_id="run", operator_id="out", subtask_index=0, parallelism=1
    )
    context: Any = SimpleNamespace(function=function, clock=ManualClock(), operator_state=state)
    operator = SinkOperatorFactory(PartsSink(str(folder), TextEncoder()))()
    operator.open(context)
    return operator


@pytest.mark.parametrize(
    ("notices", "seen"),
    [([1], ["1"]), ([2], ["1", "2"]), ([1, 2], ["1", "2"]), ([0], ["1", "2", "3"]), ([1, 0], ["1", "2", "3"])],
    ids=["first", "second alone", "both", "the end", "a savepoint, then the end"],
)
def test_a_notice_commits_what_came_before_it(notices: list[int], seen: list[str], tmp_path: Path) -> None:
    operator = opened(tmp_path, OperatorState())
    for number in (1, 2):
        operator.process(Batch([number]), 0)
        operator.snapshot(number)
    operator.process(Batch([3]), 0)
    for number in notices:
        if number == 0:
            operator.snapshot(0)
        operator.notify_complete(number)
    assert visible(tmp_path) == seen
    operator.close()


def test_a_restored_operator_commits_first(tmp_path: Path) -> None:
    state = OperatorState()
    operator = opened(tmp_path, state)
    operator.process(Batch([1]), 0)
    operator.snapshot(1)
    operator.process(Batch([2]), 0)
    operator.close()
    opened(tmp_path, state).close()
    assert visible(tmp_path) == ["1"]
