"""Parts that models share: attention over the paged cache, rotary positions. Brings torch."""

from sagellm_core.layers.attention import AttentionMetadata, TorchPagedAttention
from sagellm_core.layers.rope import rope_tables, rotate

__all__ = ["AttentionMetadata", "TorchPagedAttention", "rope_tables", "rotate"]
