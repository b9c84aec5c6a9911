"""Parts that models share: attention over the paged cache, matrix products, rotary positions. Brings torch."""

from sagellm_core.layers.attention import (
    AttentionMetadata,
    AttentionSpec,
    HeadNorms,
    PagedAttention,
    TorchPagedAttention,
)
from sagellm_core.layers.linear import ColumnParallel, Linear, LinearOp, RowParallel, laid_out
from sagellm_core.layers.rope import StepRope, rope_tables, rotate

__all__ = [
    "AttentionMetadata",
    "AttentionSpec",
    "ColumnParallel",
    "HeadNorms",
    "Linear",
    "LinearOp",
    "PagedAttention",
    "RowParallel",
    "StepRope",
    "TorchPagedAttention",
    "laid_out",
    "rope_tables",
    "rotate",
]
