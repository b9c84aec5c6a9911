"""Chains and tasks of one subtask each, run in the test's own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sage.core.api import LocalEnvironment
from sage.core.graph import build_plan
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Batch, EndOfStream, Item
from sage.core.runtime.failure import OnError
from sage.core.runtime.local.wiring import JobContext, wire
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import RuntimeSettings
from sage.core.runtime.task import Task

END = EndOfStream()


def of(*records: Any, at: list[int] | None = None) -> Batch:
    return Batch(list(records), at)


def untouched() -> Any:
    """A stream whose source is never read: its tasks are fed by hand."""
    return LocalEnvironment("by hand").from_collection([0])


def wired(
    stream: Any, *, chaining: bool = True, on_error: OnError | None = None, **settings: Any
) -> tuple[list[Task], list[InputGate]]:
    """All tasks of the stream's environment with parallelism 1, and their gates; channels are roomy."""
    graph = stream.env._graph
    roomy = RuntimeSettings(**{"channel_capacity": 1000, **settings})
    context = JobContext("id", "job", roomy, ServiceRegistry(), threading.Event(), threading.Event(), on_error=on_error)
    plan = build_plan(graph, range(len(graph.nodes)), roomy.parallelism, chaining=chaining)
    return wire(plan, context)


def taken(gate: InputGate) -> list[Item]:
    """Everything that can be taken now; neighbouring batches joined."""
    items: list[Item] = []
    while (got := gate.take(0)) is not None:
        item = got[1]
        last = items[-1] if items else None
        if isinstance(item, Batch) and isinstance(last, Batch):
            last.records.extend(item.records)
            if last.timestamps is not None and item.timestamps is not None:
                last.timestamps.extend(item.timestamps)
        else:
            items.append(item)
        if isinstance(item, EndOfStream):
            break
    return items


def through(build: Callable[[Any], Any], *items: Item, **settings: Any) -> list[Item]:
    """What comes out of `build(stream)` when these items, and the end, go in."""
    stream = build(untouched().rebalance())
    stream.rebalance().sink(lambda record: None)
    tasks, gates = wired(stream, **settings)
    for item in (*items, END):
        gates[0].put(0, item)
    failed = tasks[1].run()
    assert failed is None, failed
    return taken(gates[-1])


def added(stream: Any, make: Callable[[], Operator], *others: Any) -> Any:
    """The stream behind an operator."""
    return stream._operator("operator", make, *others)
