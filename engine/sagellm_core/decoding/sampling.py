"""Sampling: a draw from softmax(scores / temperature) after top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sagellm_core.decoding.adjust import Row
from sagellm_core.decoding.base import TokenStrategy
from sagellm_core.decoding.draw import draw


class SamplingStrategy(TokenStrategy):
    """Every row draws with its own sequence's next number, so a seed means the same in every batch."""

    def choose(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        uniforms = [row.state.uniforms.peek(len(row.ahead)) for row in rows]
        return draw(scores, [row.state.params for row in rows], uniforms)
