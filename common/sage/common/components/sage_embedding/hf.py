"""The `hf` method: any BERT-family folder in Hugging Face format, run locally through transformers.

torch and transformers are imported when the first embedder is created, never on import of this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.components.sage_embedding.hf_folder import FolderSettings, read_settings
from sage.common.errors import ModelError

if TYPE_CHECKING:
    import torch


class HFEmbedding(BaseEmbedding):
    """An encoder from a Hugging Face folder: pooled over the text's own tokens, L2 norm 1.

    `model` is a folder or the name of a model in the local Hugging Face cache; nothing is downloaded and no code of the
    folder is run. `pooling` is "mean" (over the attention mask) or "cls"; by default as sentence-transformers' files
    in the folder say. Texts past `max_length` tokens are cut. Batches hold texts of like length, at most
    `batch_tokens` tokens with padding, and padding never enters a vector.

    Raises ModelError where torch or transformers is missing, or the folder is no encoder.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: str | None = None,
        device: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> None:
        self._settings: FolderSettings = read_settings(str(model), pooling, max_length)
        self._name = str(model)
        self._batch_tokens = max(1, batch_tokens)
        self._tokenizer, self._model = _load(self._settings, device)
        self._device: torch.device = next(self._model.parameters()).device
        self._dim = int(self._model.config.hidden_size)

    @property
    def method_name(self) -> str:
        """Return "hf"."""
        return "hf"

    @property
    def model_name(self) -> str:
        """Return the model as it was named."""
        return self._name

    def get_dim(self) -> int:
        """Return the hidden size of the model."""
        return self._dim

    def get_model_info(self) -> dict[str, Any]:
        """Return method, model, dimension, folder, pooling, max_length and device."""
        settings = self._settings
        return super().get_model_info() | {
            "path": str(settings.path),
            "pooling": settings.pooling,
            "max_length": settings.max_length,
            "device": str(self._device),
        }

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model reads of a text, special ones included."""
        return len(self._encode([text])[0])

    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors as an array of shape (len(texts), hidden size), float32."""
        return self.embed_counted(texts)[0]

    def embed_counted(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Return the vectors and how many tokens the model read of each text, from one tokenisation."""
        vectors = np.zeros((len(texts), self._dim), dtype=np.float32)
        encoded = self._encode(list(texts)) if texts else []
        lengths = [len(ids) for ids in encoded]
        for rows in self._buckets(lengths):
            vectors[rows] = self._forward([encoded[row] for row in rows])
        return vectors, lengths

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of texts, cut to `max_length`."""
        ids: list[list[int]] = self._tokenizer(
            texts, truncation=True, max_length=self._settings.max_length, padding=False
        )["input_ids"]
        return ids

    def _buckets(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield groups of rows of like length, each within the token budget (one text always fits)."""
        group: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            longest = max(1, lengths[row])
            padded = longest * (len(group) + 1)
            waste = padded - sum(max(1, lengths[one]) for one in group) - longest
            if group and (padded > self._batch_tokens or waste > padded // 4):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Run one padded batch and return its pooled, normalised vectors."""
        import torch

        longest = max(1, *(len(ids) for ids in rows))
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            if self._settings.pooling == "cls":
                pooled = hidden[:, 0]
            else:
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors


def _load(settings: FolderSettings, device: str | None) -> tuple[Any, Any]:
    """Return the tokenizer and the model in evaluation mode; raises ModelError where the folder cannot be loaded."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ModelError(
            "The embedding method 'hf' needs torch and transformers",
            cause=f"{error.name} is not installed.",
            hint="pip install 'sage-stack[hf]'",
        ) from error
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    notices: Any = transformers.logging
    verbosity = notices.get_verbosity()
    notices.set_verbosity_error()
    notices.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(settings.path, **options)
        model = transformers.AutoModel.from_pretrained(
            settings.path, use_safetensors=True, dtype=torch.float32, **options
        )
    except Exception as error:  # transformers raises many kinds for a broken folder; all mean the same here
        raise ModelError(
            f"The embedding model in {settings.path} cannot be loaded",
            cause=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}",
            hint=f"ls {settings.path}",
        ) from error
    finally:
        notices.set_verbosity(verbosity)
        notices.enable_progress_bar()
    return tokenizer, model.to(where).eval()
