"""The `hash` method: lexical vectors by signed feature hashing (Weinberger et al. 2009), instant and without a model.

The same text gives the same vector in every process and on every machine: features are hashed with BLAKE2b, never with
Python's own `hash()`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.components.sage_embedding.features import LONG, Token, pair_features, token_features, tokenize
from sage.common.errors import ConfigError

_CACHE_LIMIT = 20_000  # a few kilobytes a word
_CHUNK = 1024
_COPIES = 3

_Hashed = tuple[NDArray[np.int64], NDArray[np.float32]]


class HashEmbedding(BaseEmbedding):
    """Word and character n-gram features, sublinear counts, signed hashing into `dim` buckets, L2 norm 1.

    Texts are alike where they share words, word parts or word neighbours; the method knows nothing of meaning. Good for
    finding the passage that holds a question's words, tests and demonstrations.
    """

    def __init__(self, dim: int = 384) -> None:
        if type(dim) is not int or not 8 <= dim <= 65536:
            raise ConfigError(
                f"dim={dim!r} is no dimension for the hash embedding",
                cause="It must be a whole number from 8 to 65536.",
                hint='EmbeddingFactory.create("hash", dim=384)',
            )
        self._dim = dim
        self._tokens: dict[Token, _Hashed] = {}

    @property
    def method_name(self) -> str:
        """Return "hash"."""
        return "hash"

    def get_dim(self) -> int:
        """Return the length of a vector."""
        return self._dim

    def get_model_info(self) -> dict[str, Any]:
        """Return method, model and dimension; `lexical` says that the method knows words, not meaning."""
        return super().get_model_info() | {"lexical": True}

    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors as an array of shape (len(texts), dim), float32."""
        vectors = np.zeros((len(texts), self._dim), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            vectors[start : start + len(part)] = self._embed_chunk(part)
        return vectors

    def _embed_chunk(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scatter the features of up to `_CHUNK` texts into their rows and normalise."""
        buckets: list[NDArray[np.int64]] = []
        values: list[NDArray[np.float32]] = []
        scales: list[float] = []
        sizes: list[int] = []
        rows: list[int] = []
        for row, text in enumerate(texts):
            for (indices, weights), scale in self._features(text):
                buckets.append(indices)
                values.append(weights)
                scales.append(scale)
                sizes.append(len(indices))
                rows.append(row)
        if not buckets:
            return np.zeros((len(texts), self._dim), dtype=np.float32)
        where = np.concatenate(buckets) + np.repeat(np.asarray(rows, dtype=np.int64) * self._dim, sizes)
        what = np.concatenate(values) * np.repeat(np.asarray(scales, dtype=np.float32), sizes)
        sums = np.bincount(where, weights=what, minlength=len(texts) * self._dim).reshape(len(texts), self._dim)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        unit: NDArray[np.float32] = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0).astype(np.float32)
        return unit

    def _features(self, text: str) -> list[tuple[_Hashed, float]]:
        """Return the hashed features of a text, each with its sublinear count 1 + ln(count)."""
        tokens = tokenize(text)
        features = [(self._hashed(token), 1.0 + math.log(count)) for token, count in Counter(tokens).items()]
        pairs = Counter(pair_features(tokens))
        if pairs:
            scaled = [(name, weight * (1.0 + math.log(count))) for (name, weight), count in pairs.items()]
            features.append((self._scatter(scaled), 1.0))
        return features

    def _hashed(self, token: Token) -> _Hashed:
        """Return a token's features, hashed; remembered for tokens of ordinary length."""
        if len(token.stem) > LONG:
            return self._scatter(token_features(token))
        known = self._tokens.get(token)
        if known is None:
            if len(self._tokens) >= _CACHE_LIMIT:
                self._tokens.clear()
            known = self._tokens[token] = self._scatter(token_features(token))
        return known

    def _scatter(self, features: list[tuple[str, float]]) -> _Hashed:
        """Return the buckets and the signed weights of features; each feature has `_COPIES` buckets.

        With one bucket a feature could vanish under another one of the opposite sign; with several only a part does.
        """
        codes = [code for name, _ in features for code in _codes(name)]
        weights = [weight * _COPIES**-0.5 for _, weight in features for _ in range(_COPIES)]
        indices = np.fromiter((code // 2 % self._dim for code in codes), dtype=np.int64, count=len(codes))
        signed = (weight if code & 1 else -weight for code, weight in zip(codes, weights, strict=True))
        return indices, np.fromiter(signed, dtype=np.float32, count=len(codes))


def _codes(feature: str) -> tuple[int, ...]:
    """Return `_COPIES` numbers of 64 bits that depend on nothing but the feature's text."""
    digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8 * _COPIES).digest()
    return tuple(int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8))
