"""One vector for a text, from the hidden states of its tokens as they are computed, chunk by chunk."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize


class PooledVector:
    """`kind` is mean (of all tokens), cls (the first) or last (the last token's state)."""

    def __init__(self, kind: str) -> None:
        if kind not in ("mean", "cls", "last"):
            raise ValueError(f"pooling is mean, cls or last, not {kind!r}")
        self.kind = kind
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, hidden: Tensor, position: int) -> None:
        """Take in the states (tokens, hidden) of the tokens from `position` on; at 0 everything begins anew."""
        if position == 0:
            self._sum, self._count = None, 0
        if self.kind == "cls":
            self._sum = hidden[0].float() if self._sum is None else self._sum
            return
        if self.kind == "last":
            self._sum = hidden[-1].float()
            return
        total = hidden.float().sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(hidden)

    def vector(self) -> list[float]:
        """The pooled state at length 1."""
        assert self._sum is not None, "add() comes first"
        pooled = self._sum / self._count if self.kind == "mean" else self._sum
        unit: list[float] = normalize(pooled, dim=0).tolist()
        return unit
