"""What a model and its runner ask of the other ranks of their engine, and the engine of one rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Communicator(Protocol):
    """The ranks that share every matrix of a model (tensor parallelism, Shoeybi et al. 2019, "Megatron-LM")."""

    @property
    def rank(self) -> int:
        """Number of this rank in the group, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks in the group."""
        ...

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of every rank's `x`, on every rank; may work in place."""
        ...

    def all_gather(self, x: Tensor) -> Tensor:
        """Every rank's `x` side by side along the last dimension, on every rank."""
        ...


class SingleProcess:
    """The group of one: nothing to exchange."""

    rank = 0
    size = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        return x


class Stage(Protocol):
    """One of the stages that hidden states pass through in turn (pipeline parallelism, Huang et al. 2019, "GPipe")."""

    @property
    def index(self) -> int:
        """Number of this stage, from 0. The first embeds, the last has the final norm and the head."""
        ...

    @property
    def count(self) -> int: ...

    def receive(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Hidden states (rows, width) from the stage before."""
        ...

    def send(self, hidden: Tensor) -> None:
        """Hidden states to the stage after; may return before they are there."""
        ...


class SingleStage:
    """The whole model in one stage: nobody to receive from or to send to."""

    index = 0
    count = 1

    def receive(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        raise AssertionError("the first stage receives nothing")

    def send(self, hidden: Tensor) -> None:
        raise AssertionError("the last stage sends nothing")


@dataclass(slots=True, frozen=True)
class Place:
    """Where a worker stands: `group` shares the matrices of its layers, `stage` says which layers those are.

    What of the model it therefore holds is `models.shard.Shard`.
    """

    group: Communicator
    stage: Stage

    @property
    def is_first(self) -> bool:
        return self.stage.index == 0

    @property
    def is_last(self) -> bool:
        return self.stage.index == self.stage.count - 1

    @property
    def answers(self) -> bool:
        """Whether this rank samples, and answers for all: the first of the last stage."""
        return self.is_last and self.group.rank == 0

    @property
    def alone(self) -> bool:
        return self.group.size * self.stage.count == 1

    def least(self, value: int) -> int:
        """The smallest `value` that any rank of the engine brought. Every rank has to call it."""
        return value


ALONE = Place(SingleProcess(), SingleStage())
