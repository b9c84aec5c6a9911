"""What the engine and a rank of it say to each other. Every order but `Stop` is answered by exactly one answer."""

from __future__ import annotations

from typing import Any

import msgspec

from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.executor.base import WorkerInfo
from sagellm_core.wire import Fault


class Load(msgspec.Struct, frozen=True, tag=True):
    """The first order: meet the other ranks, load this rank's part. `config` is an LLMEngineConfig."""

    config: dict[str, Any]
    folder: str
    max_model_len: int
    rank: int
    meeting: str
    timeout_s: float


class Step(msgspec.Struct, frozen=True, tag=True):
    """Compute one step."""

    plan: SchedulerOutput


class ReadBlocks(msgspec.Struct, frozen=True, tag=True):
    """Send the content of these cache blocks as a body."""

    blocks: list[int]


class WriteBlocks(msgspec.Struct, frozen=True, tag=True):
    """Take the body as the content of these cache blocks."""

    blocks: list[int]


class Sleep(msgspec.Struct, frozen=True, tag=True):
    """Give weights and cache back."""


class Wake(msgspec.Struct, frozen=True, tag=True):
    """End a sleep."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End the process."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The rank is ready."""

    info: WorkerInfo


class Done(msgspec.Struct, frozen=True, tag=True):
    """An order is carried out; `output` comes from the rank that answers for all.

    The rest counts since the rank began: collective operations, and the seconds that they took.
    """

    output: StepOutput | None = None
    all_reduces: int = 0
    all_gathers: int = 0
    comm_seconds: float = 0.0


Order = Load | Step | ReadBlocks | WriteBlocks | Sleep | Wake | Stop
Answer = Loaded | Done | Fault
