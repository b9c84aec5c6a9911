"""Matrix products of a model. A backend may give its own in another memory layout or a smaller type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, addmm, float32, mm

from sagellm_core.comm import Communicator


class LinearOp(Protocol):
    """(rows, inputs) in, (rows, outputs) out."""

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(slots=True)
class Linear:
    """`x @ weight + bias`; weight is (inputs, outputs), see `laid_out`."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return mm(x, self.weight) if self.bias is None else addmm(self.bias, x, self.weight)


@dataclass(slots=True)
class RowParallel:
    """A matrix whose inputs are spread over the ranks: every rank has a part of the sum. The bias is added once."""

    part: LinearOp
    bias: Tensor | None
    group: Communicator

    def __call__(self, x: Tensor) -> Tensor:
        total = self.group.all_reduce(self.part(x))
        return total if self.bias is None else total + self.bias


@dataclass(slots=True)
class ColumnParallel:
    """A matrix whose outputs are spread over the ranks and gathered on all of them: the head of a sharded model.

    Every rank has as many outputs; `outputs` are the real ones, what the last ranks have beyond is cut off.
    """

    part: LinearOp
    group: Communicator
    outputs: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.group.all_gather(self.part(x))[:, : self.outputs]


def laid_out(matrix: Tensor) -> Tensor:
    """A checkpoint's (outputs, inputs) matrix as (inputs, outputs), in the memory order that its device likes.

    On a CPU a single float32 row is twice as fast over rows of outputs (181 against 355 µs for the built-in model's 21
    matrices); elsewhere the transposed view is as good and costs nothing.
    """
    turned = matrix.t()
    return turned.contiguous() if matrix.device.type == "cpu" and matrix.dtype is float32 else turned
