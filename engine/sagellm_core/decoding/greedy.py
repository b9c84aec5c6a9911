"""Greedy decoding: the likeliest token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sagellm_core.decoding.adjust import Row
from sagellm_core.decoding.base import TokenStrategy


class GreedyStrategy(TokenStrategy):
    """One argmax for all rows."""

    def choose(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        return scores.argmax(-1)
