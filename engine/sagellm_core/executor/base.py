"""Where steps run: in this process, or on several ranks. The scheduler cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError, invalid


@dataclass(slots=True, frozen=True)
class WorkerInfo:
    """What loaded workers offer to the scheduler, and say about themselves.

    `bytes_per_token` is what a token takes in the caches of all ranks together. `kv_layout` names the form of a block's
    content, `block_bytes` is its size: blocks can be copied between engines whose layouts are equal.
    """

    num_blocks: int
    token_budget: int
    bytes_per_token: int
    dtype: str
    device: dict[str, object]
    kv_layout: str = ""
    block_bytes: int = 0


@dataclass(slots=True, frozen=True)
class CommStats:
    """Collective operations of one rank since the start, and the seconds that it waited in them."""

    all_reduces: int = 0
    all_gathers: int = 0
    seconds: float = 0.0


NOT_LOADED = WorkerInfo(0, 0, 0, "", {})
_TRANSPORTS = ("auto", "gloo", "nccl", "hccl")


def check_comm_type(name: str) -> None:
    """Raise EngineError that names the known ones unless ranks can talk over this; also where there is only one."""
    if name not in _TRANSPORTS:
        raise invalid(f"no comm_type {name!r}; known: {', '.join(_TRANSPORTS)}", "comm_type")


class Executor(Protocol):
    """Runs plans in order; used from one thread. `info` is what `start` returned, `comm` what ranks exchanged."""

    info: WorkerInfo
    comm: CommStats

    def start(self) -> WorkerInfo:
        """Load the model on every worker; what they offer together."""
        ...

    def watch(self, on_lost: Callable[[EngineError], None]) -> None:
        """Have `on_lost` called, on any thread, when ranks end by themselves, a step running or not."""
        ...

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        """One step. EngineError(distributed_runtime_error) means that the ranks are gone; nothing else ends them."""
        ...

    def read_blocks(self, blocks: list[int]) -> bytearray:
        """The content of these cache blocks, one after the other, in the form that `WorkerInfo.kv_layout` names."""
        ...

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        """Put what `read_blocks` gave (of as many blocks, of an equal layout) into these blocks."""
        ...

    def sleep(self) -> None:
        """Drop weights and cache; what is known of sequences stays."""
        ...

    def wake(self) -> None:
        """Undo `sleep`: weights again, a cache of the same size with undefined content. Raises what `start` raises."""
        ...

    def stop(self) -> None: ...


@runtime_checkable
class OverlappingExecutor(Executor, Protocol):
    """An executor whose steps are computed elsewhere: between `submit` and `result` the caller has time of its own."""

    def submit(self, plan: SchedulerOutput) -> None:
        """Begin a step; the one before has given its result. Raises what `execute` raises."""
        ...

    def result(self) -> StepOutput:
        """Wait for the step that `submit` began. Raises what `execute` raises."""
        ...

    def abandon(self) -> None:
        """End the workers now, whatever they do: who waits for them learns that they are gone. From any thread."""
        ...
