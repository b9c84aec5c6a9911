"""Ranks over torch.distributed: gloo between CPUs, nccl between NVIDIA GPUs, hccl between Ascend NPUs.

Rank `stage * tensor_size + t` is number `t` of the tensor-parallel group of its stage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor

from sagellm_core.comm.base import Communicator, Place, SingleProcess, SingleStage, Stage
from sagellm_core.errors import EngineError
from sagellm_protocol.errors import ErrorCode


@dataclass(slots=True)
class Traffic:
    """What one rank exchanged so far: numbers of operations, seconds that it waited for them."""

    all_reduces: int = 0
    all_gathers: int = 0
    seconds: float = 0.0


@contextmanager
def exchange(traffic: Traffic) -> Iterator[None]:
    """Time an exchange. Raises EngineError (comm_timeout, distributed_runtime_error) when it fails.

    Who fails in the middle of one is out of step with the others for good.
    """
    begun = perf_counter()
    try:
        yield
    except RuntimeError as error:
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        code = ErrorCode.COMM_TIMEOUT if late else ErrorCode.DISTRIBUTED_RUNTIME_ERROR
        raise EngineError(code, "Cannot exchange tensors with the other ranks", cause=str(error)) from error
    traffic.seconds += perf_counter() - begun


@dataclass(slots=True)
class TensorGroup:
    """The tensor-parallel group of a stage."""

    rank: int
    size: int
    group: dist.ProcessGroup | None
    traffic: Traffic

    def all_reduce(self, x: Tensor) -> Tensor:
        with exchange(self.traffic):
            dist.all_reduce(x, group=self.group)
        self.traffic.all_reduces += 1
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)]
        with exchange(self.traffic):
            dist.all_gather(parts, x, group=self.group)
        self.traffic.all_gathers += 1
        return torch.cat(parts, dim=-1)


@dataclass(slots=True)
class PipelineStage:
    """One stage; every rank of it talks to the rank with its own number in the stages before and after."""

    index: int
    count: int
    rank: int
    tensor_size: int
    traffic: Traffic
    _sending: list[tuple[dist.Work, Tensor]] = field(default_factory=list)

    def receive(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        hidden = torch.empty((rows, width), dtype=dtype, device=device)
        with exchange(self.traffic):
            dist.recv(hidden, src=self.rank - self.tensor_size)
        return hidden

    def send(self, hidden: Tensor) -> None:
        """Hands the states over and goes on; what was sent before is waited for, so that two are under way at most."""
        hidden = hidden.contiguous()
        with exchange(self.traffic):
            while len(self._sending) > 1:
                self._sending.pop(0)[0].wait()
            work = dist.isend(hidden, dst=self.rank + self.tensor_size)
        assert work is not None, "this rank is a member of the default group"
        self._sending.append((work, hidden))


@dataclass(slots=True, frozen=True)
class RankPlace(Place):
    """A place among several ranks."""

    traffic: Traffic
    device: torch.device

    def least(self, value: int) -> int:
        number = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.all_reduce(number, op=dist.ReduceOp.MIN)
        return int(number.item())


@dataclass(slots=True, frozen=True)
class Meeting:
    """How the ranks of one engine find each other: through a file that all of them see, which must not exist before."""

    file: Path
    rank: int
    tensor_size: int
    stages: int
    transport: str
    timeout_s: float


def join(meeting: Meeting, device: torch.device) -> RankPlace:
    """Wait for the other ranks. Raises RuntimeError when they do not come within the timeout."""
    size, world = meeting.tensor_size, meeting.tensor_size * meeting.stages
    if meeting.transport == "gloo":  # every rank is on this host: no name lookups, nothing listens outside
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.uname().sysname == "Linux" else "lo0")
    dist.init_process_group(
        meeting.transport,
        init_method=meeting.file.absolute().as_uri(),
        rank=meeting.rank,
        world_size=world,
        timeout=timedelta(seconds=meeting.timeout_s),
    )
    index, number = divmod(meeting.rank, size)
    traffic = Traffic()
    group: Communicator = SingleProcess()
    if size > 1:
        groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world, size)]
        group = TensorGroup(number, size, groups[index], traffic)
    stage: Stage = SingleStage()
    if meeting.stages > 1:
        stage = PipelineStage(index, meeting.stages, meeting.rank, size, traffic)
    return RankPlace(group, stage, traffic, device)


def leave() -> None:
    """Close the connections to the other ranks; without any it does nothing."""
    if dist.is_initialized():
        dist.destroy_process_group()
