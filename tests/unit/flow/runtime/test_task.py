"""A subtask by itself: stops that come to nothing, inputs that cannot be closed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from tests.faults.flow.exactly_once_job import Numbers, NumbersReader
from tests.unit.flow.runtime.harness import wired

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment
from sage.core.connectors.base import ReaderContext, SourceReader
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.runtime.events import Barrier, CheckpointKind
from sage.core.runtime.task import Task

pytestmark = pytest.mark.spec("K6")


def test_a_source_that_stopped_for_a_savepoint_that_failed_comes_to_its_end() -> None:
    """It cannot be read on, and nobody releases it: the stream ends with what was read."""
    seen: list[int] = []
    tasks: list[Task] = []
    counter = iter(range(10**9))

    def stop_in_vain(number: int) -> None:
        if not seen:
            tasks[0].trigger(Barrier(7, CheckpointKind.STOP_WITH_SAVEPOINT))
            tasks[0].notify_aborted(7)
            tasks[0].trigger(Barrier(8))
        seen.append(number)

    stream: Any = LocalEnvironment("endless").from_source(lambda: next(counter))
    stream.sink(stop_in_vain)
    tasks += wired(stream)[0]
    thread = threading.Thread(target=tasks[0].run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert seen == list(range(len(seen)))


@dataclass(frozen=True)
class CannotClose(Numbers):
    """Numbers whose reader raises when it is closed."""

    def reader(self, context: ReaderContext) -> SourceReader[int]:
        return CannotCloseReader(self)


class CannotCloseReader(NumbersReader):
    def close(self) -> None:
        raise ConnectionError("gone already")


def test_a_source_that_cannot_be_closed_fails_the_job_which_ends() -> None:
    env: Any = LocalEnvironment("closing")
    seen: list[int] = []
    source = SourceSpec(SourceKind.CONNECTOR, True, CannotClose(10, 1, 0.0))
    env._source(source, "numbers", 1, Origin.of_caller()).sink(seen.append)
    handle = env.submit(block=False)
    with pytest.raises(PipelineError, match="gone already"):
        handle.wait(20)
    assert seen == list(range(10))
    assert handle.status() == "failed"
