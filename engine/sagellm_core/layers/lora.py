"""Low-rank adapters beside a matrix (Hu et al. 2022, "LoRA"), any number of them in one batch.

The rows of a step are grouped by adapter, and each group costs two thin products of its own; that is the idea of Punica
(Chen et al. 2024) without its kernel. Rows without an adapter pay nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sagellm_core.layers.linear import LinearOp


@dataclass(slots=True, frozen=True)
class LowRank:
    """What one adapter adds to a product: `x @ down @ up`, down (inputs, rank), up (rank, outputs), scale included."""

    down: Tensor
    up: Tensor


@dataclass(slots=True)
class AdapterRows:
    """Which rows of the step that runs belong to which adapter; all matrices of a model look at the same one.

    Rows are indices (count,), or None for all rows of the step.
    """

    groups: list[tuple[str, Tensor | None]] = field(default_factory=list)


@dataclass(slots=True)
class LoraLinear:
    """A matrix with the adapters that change it, by name."""

    base: LinearOp
    adapters: dict[str, LowRank]
    step: AdapterRows

    def __call__(self, x: Tensor) -> Tensor:
        out = self.base(x)
        for name, rows in self.step.groups:
            pair = self.adapters.get(name)
            if pair is None:
                continue
            if rows is None:
                out.addmm_(x @ pair.down, pair.up)
            else:
                out.index_add_(0, rows, x[rows] @ pair.down @ pair.up)
        return out
