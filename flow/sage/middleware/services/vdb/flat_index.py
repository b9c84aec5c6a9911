"""An exact index: rows of float32 in one growing matrix. Knows neither ids nor metadata, and takes no locks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FlatIndex", "Metric", "Vectors"]

Metric: TypeAlias = Literal["cosine", "ip", "l2"]
Vectors: TypeAlias = npt.NDArray[np.float32]
_FIRST_ROWS = 64
_SCORES_AT_ONCE = 16_000_000  # float32 values: 64 MB


class FlatIndex:
    """`dim` columns. Scores: the higher the nearer; cosine, inner product, or minus the Euclidean distance."""

    def __init__(self, dim: int, metric: Metric) -> None:
        self.dim = dim
        self.metric = metric
        self.count = 0
        self._rows: Vectors = np.empty((_FIRST_ROWS, dim), np.float32)
        self._norms: Vectors = np.empty(_FIRST_ROWS, np.float32)

    @property
    def vectors(self) -> Vectors:
        """All rows, shape (count, dim); a view."""
        return self._rows[: self.count]

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._norms.nbytes

    def append(self, vectors: Vectors) -> None:
        """Add rows at the end; shape (n, dim)."""
        end = self.count + len(vectors)
        if end > len(self._rows):
            self._grow(max(end, 2 * len(self._rows)))
        self._rows[self.count : end] = vectors
        self._norms[self.count : end] = np.linalg.norm(vectors, axis=1)
        self.count = end

    def replace(self, row: int, vector: Vectors) -> None:
        """Change one row."""
        self._rows[row] = vector
        self._norms[row] = np.linalg.norm(vector)

    def remove(self, row: int) -> None:
        """Take a row out: the last one moves into its place."""
        last = self.count - 1
        self._rows[row] = self._rows[last]
        self._norms[row] = self._norms[last]
        self.count = last

    def scores(self, queries: Vectors) -> Iterator[Vectors]:
        """For each query (shape (m, dim)) the scores of all rows, shape (count,)."""
        step = max(1, _SCORES_AT_ONCE // max(1, self.count))
        for start in range(0, len(queries), step):
            yield from self._block(queries[start : start + step])

    def refine(self, query: Vectors, rows: npt.NDArray[np.intp], scores: Vectors) -> Vectors:
        """The exact scores of a few rows; the quick way loses digits where vectors are almost equal."""
        if self.metric != "l2":
            return scores
        exact: Vectors = -np.linalg.norm(self._rows[rows] - query, axis=1)
        return exact

    def _block(self, queries: Vectors) -> Vectors:
        """Shape (m, count)."""
        rows, norms = self.vectors, self._norms[: self.count]
        products: Vectors = (rows @ queries[0])[None, :] if len(queries) == 1 else queries @ rows.T
        if self.metric == "ip":
            return products
        own = np.linalg.norm(queries, axis=1)[:, None]
        if self.metric == "cosine":
            scale = own * norms
            np.divide(products, scale, out=products, where=scale > 0)
            products[scale == 0] = 0.0
            return products
        squared = own**2 + norms**2 - 2 * products
        distances: Vectors = -np.sqrt(np.maximum(squared, 0))
        return distances

    def _grow(self, rows: int) -> None:
        for name in ("_rows", "_norms"):
            old = getattr(self, name)
            new = np.empty((rows, *old.shape[1:]), np.float32)
            new[: self.count] = old[: self.count]
            setattr(self, name, new)
