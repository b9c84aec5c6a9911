"""Where steps run: in this process, or (later) on several ranks. The scheduler cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput


@dataclass(slots=True, frozen=True)
class WorkerInfo:
    """What loaded workers offer to the scheduler, and say about themselves."""

    num_blocks: int
    token_budget: int
    bytes_per_token: int
    dtype: str
    device: dict[str, object]


class Executor(Protocol):
    """Runs plans in order; used from one thread."""

    def start(self) -> WorkerInfo:
        """Load the model on every worker; what they offer together."""
        ...

    def execute(self, plan: SchedulerOutput) -> StepOutput: ...

    def stop(self) -> None: ...
