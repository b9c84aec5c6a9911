"""What the model runner asks of every architecture."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sagellm_core.layers.attention import AttentionMetadata, PagedAttention
from sagellm_core.models.config import ModelConfig


class CausalLM(Protocol):
    """A decoder, or the layers of one pipeline stage of it. Plain functions of tensors; holds no request's state."""

    config: ModelConfig

    @property
    def dtype(self) -> torch.dtype:
        """The type that hidden states and the KV cache have."""
        ...

    @property
    def num_kv_heads(self) -> int:
        """Key-value heads that this rank keeps in its cache."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers of this stage: the number of caches."""
        ...

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: AttentionMetadata,
    ) -> Tensor:
        """Hidden states (tokens, hidden) of every token of the step; the last stage's are normalised.

        `inputs` are token ids (tokens,) on the first stage, the hidden states of the stage before on the others.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary) of rows of the last stage's hidden states."""
        ...
