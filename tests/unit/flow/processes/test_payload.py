"""The job as bytes, and sinks that would fill something of this process."""

from __future__ import annotations

import collections
import threading
from typing import Any

import pytest

from sage.common.errors import PipelineError, ServiceError
from sage.core.api import LocalEnvironment
from sage.core.graph.plan import PhysicalPlan, build_plan
from sage.core.runtime.checkpointing import CheckpointAccess
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.processes.checks import refuse_local_sinks
from sage.core.runtime.processes.payload import JobPayload, load_job
from sage.core.runtime.processes.placement import placed
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import RuntimeSettings


def plan_of(env: LocalEnvironment) -> PhysicalPlan:
    return build_plan(env._graph, range(len(env._graph.nodes)), 2)


def payload(plan: PhysicalPlan, tmp_path: Any, services: Any = None) -> JobPayload:
    context = JobContext(
        "id", "job", RuntimeSettings(), services or ServiceRegistry(), threading.Event(), threading.Event()
    )
    access = CheckpointAccess(None, tmp_path, lambda call: None, False, lambda task, subtask: None)  # type: ignore[arg-type]
    return JobPayload(plan, placed(plan, 2), context, access)


def test_collections_go_only_to_those_who_read_them(tmp_path: Any) -> None:
    env = LocalEnvironment("data")
    env.from_collection(list(range(50_000))).map(lambda x: x + 1).sink(id)
    plan = plan_of(env)
    made = payload(plan, tmp_path)
    where = placed(plan, 2)
    reader = where[0, 0]
    assert len(made.of(reader)) > 50_000 > len(made.of(1 - reader))
    loaded = load_job(made.of(reader)).plan.tasks[0].head.node.source
    assert loaded is not None
    assert list(loaded.data) == list(range(50_000))
    other = load_job(made.of(1 - reader)).plan.tasks[0].head.node.source
    assert other is not None
    assert list(other.data) == []


def test_the_operator_and_line_of_what_cannot_leave(tmp_path: Any) -> None:
    lock = threading.Lock()
    env = LocalEnvironment("locks")
    env.from_collection([1]).map(lambda x: x, name="fine").key_by(lambda x: lock.locked()).reduce(max).sink(id)
    with pytest.raises(PipelineError, match=r"'key_by' .*test_payload\.py:\d+.*lock"):
        payload(plan_of(env), tmp_path)


def test_services_are_made_from_their_factories_and_others_say_why_not(tmp_path: Any) -> None:
    services = ServiceRegistry()
    services.register("good", collections.Counter, ("aab",), {})
    services.register("bad", threading.Lock(), (), {})
    env = LocalEnvironment("services")
    env.from_collection([1]).sink(id)
    there = load_job(payload(plan_of(env), tmp_path, services).of(0)).services
    assert there.get("good")["a"] == 2
    with pytest.raises(ServiceError, match="'bad'"):
        there.get("bad")


@pytest.mark.parametrize("container", [[], set(), collections.deque()])
def test_methods_of_containers_are_refused(container: Any) -> None:
    env = LocalEnvironment("fills")
    env.from_collection([1]).sink(getattr(container, "append", None) or container.add)
    with pytest.raises(PipelineError, match=rf"fills a {type(container).__name__} .*test_payload\.py:\d+"):
        refuse_local_sinks(plan_of(env))


known: dict[int, int] = {}


def test_functions_that_fill_are_told_and_those_that_read_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    table = {1: 2}
    env = LocalEnvironment("reads")
    env.from_collection([1]).sink(lambda value: print(table[value]))
    refuse_local_sinks(plan_of(env))
    assert capsys.readouterr().err == ""
    env = LocalEnvironment("fills")
    env.from_collection([1]).sink(lambda value: known.update({value: value}))
    refuse_local_sinks(plan_of(env))
    assert "fills 'known'" in capsys.readouterr().err
