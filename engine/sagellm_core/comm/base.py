"""What a model asks of its fellow ranks: the tensor-parallel group that it is sharded over."""

from __future__ import annotations

from typing import Protocol

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
