"""What all tasks of a job share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sage.core.api.function.service_calls import ServiceProvider
from sage.core.runtime.checkpointing import CheckpointAccess
from sage.core.runtime.clock import Clock, SystemClock
from sage.core.runtime.failure import OnError
from sage.core.runtime.settings import RuntimeSettings
from sage.core.runtime.states import MemoryStates, StateProvider
from sage.core.runtime.tracing import Spans

__all__ = ["JobContext"]


@dataclass(slots=True, frozen=True)
class JobContext:
    """What all tasks of a job share."""

    job_id: str
    name: str
    settings: RuntimeSettings
    services: ServiceProvider
    stopping: threading.Event
    aborted: threading.Event
    clock: Clock = field(default_factory=SystemClock)
    on_error: OnError | None = None
    states: StateProvider = field(default_factory=MemoryStates)
    identity: str = ""
    attempt: int = 0  # how often the job has started again in this process
    checkpoints: CheckpointAccess | None = None
    spans: Spans | None = None  # where traced records leave theirs
    owner: object = None  # kept alive, and with it the services, while the job runs
