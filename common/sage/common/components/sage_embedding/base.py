"""The contract that every embedding method fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BaseEmbedding(ABC):
    """An embedding method.

    A method implements `embed_array` (many texts at once), `get_dim` and `method_name`; the rest follows. The vector of
    a text never depends on the texts beside it in a batch. Vectors have L2 norm 1; the vector of a text without any
    content is all zeros.
    """

    @property
    @abstractmethod
    def method_name(self) -> str:
        """The method's name as `EmbeddingFactory.create` takes it."""

    @property
    def model_name(self) -> str:
        """The name of the model behind the method; the method's own name where there is no model."""
        return self.method_name

    @abstractmethod
    def get_dim(self) -> int:
        """Return the length of a vector."""

    @abstractmethod
    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors as one array of shape (len(texts), get_dim()), float32, in the order of the texts."""

    def embed(self, text: str) -> list[float]:
        """Return the vector of one text; raises TypeError for anything but a string."""
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector a text, in order; raises TypeError for a bare string or for items that are not strings."""
        check_texts(texts)
        vectors: list[list[float]] = self.embed_array(texts).tolist()
        return vectors

    def embed_counted(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Return what `embed_array` returns, and how many tokens each text cost."""
        return self.embed_array(texts), [self.count_tokens(text) for text in texts]

    def count_tokens(self, text: str) -> int:
        """Return about how many tokens a text costs; used to size batches and for the usage field of answers."""
        return max(1, len(text) // 4)

    def get_model_info(self) -> dict[str, Any]:
        """Return what is known of the model: method, model, dimension, and what the method adds."""
        return {"method": self.method_name, "model": self.model_name, "dimension": self.get_dim()}


def check_texts(texts: Sequence[str]) -> None:
    """Raise TypeError unless `texts` is a sequence of strings (a bare string is not)."""
    if isinstance(texts, str):
        raise TypeError("expected a list of texts, got one string: wrap it in a list")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {position} is {type(text).__name__}, not a string")
