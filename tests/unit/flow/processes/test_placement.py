"""Which worker runs which subtask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.core.api import LocalEnvironment
from sage.core.graph.plan import PhysicalPlan, build_plan
from sage.core.graph.spec import Partitioning
from sage.core.runtime.processes.placement import placed, worker_count
from sage.core.runtime.settings import RuntimeSettings


def plan_of(env: LocalEnvironment, parallelism: int) -> PhysicalPlan:
    return build_plan(env._graph, range(len(env._graph.nodes)), parallelism, chaining=False)


def pipeline(parallelisms: list[int]) -> PhysicalPlan:
    env = LocalEnvironment("placed")
    stream: Any = env.from_collection([1])
    for number, parallelism in enumerate(parallelisms):
        stream = stream.map(lambda x: x, parallelism=parallelism)
        if number % 3 == 2:
            stream = stream.rebalance()
    stream.sink(id, parallelism=parallelisms[-1])
    return plan_of(env, 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 4))
def test_every_subtask_has_a_worker_and_forward_edges_stay_in_it(parallelisms: list[int], workers: int) -> None:
    plan = pipeline(parallelisms)
    where = placed(plan, workers)
    assert set(where) == {(task.index, number) for task in plan.tasks for number in range(task.parallelism)}
    assert set(where.values()) <= set(range(workers))
    for edge in plan.edges:
        if edge.partitioning is Partitioning.FORWARD:
            for number in range(plan.tasks[edge.source].parallelism):
                assert where[edge.source, number] == where[edge.target, number]
    for task in plan.tasks:
        loads = [
            sum(where[task.index, number] == worker for number in range(task.parallelism)) for worker in range(workers)
        ]
        assert max(loads) - min(loads) <= 1


def test_sources_go_where_the_fewest_are() -> None:
    env = LocalEnvironment("two")
    for _ in range(2):
        env.from_collection([1]).rebalance().map(lambda x: x, parallelism=1).sink(id, parallelism=1)
    where = placed(plan_of(env, 1), 4)
    assert sorted(set(where.values())) == [0, 1, 2, 3]


def test_loops_are_in_one_worker() -> None:
    env = LocalEnvironment("loop")
    future = env.from_future("again")
    stream: Any = env.from_collection([1]).union(future).map(lambda x: x, parallelism=2)
    stream.filter(lambda x: x < 3, parallelism=2).fill_future(future)
    plan = plan_of(env, 2)
    where = placed(plan, 2)
    looped = {plan.task_of(node).index for pair in plan.feedback for node in pair}
    assert looped
    assert {where[task, number] for task, number in where if task in looped} == {0}


@pytest.mark.parametrize(("asked", "wanted"), [(3, 3), (None, 1)])
def test_the_number_of_workers(asked: int | None, wanted: int) -> None:
    assert worker_count(pipeline([1]), RuntimeSettings(processes=asked)) == wanted
