"""Dense and sparse vectors as plain values; numpy is loaded only where it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DenseVector", "SparseVector"]


@dataclass(slots=True, frozen=True)
class DenseVector:
    """A vector of `dim` finite numbers. Raises ConfigError for none at all, NaN or infinity."""

    values: tuple[float, ...]

    def __init__(self, values: Iterable[float]) -> None:
        numbers = tuple(float(value) for value in values)
        if not numbers or not all(map(math.isfinite, numbers)):
            raise ConfigError("A dense vector needs one or more finite numbers")
        object.__setattr__(self, "values", numbers)

    @property
    def dim(self) -> int:
        return len(self.values)

    @property
    def norm(self) -> float:
        """The Euclidean length."""
        return math.sqrt(math.fsum(value * value for value in self.values))

    def dot(self, other: DenseVector | SparseVector) -> float:
        """The inner product. Raises ConfigError when the dimensions differ."""
        _same_dim(self.dim, other.dim)
        if isinstance(other, SparseVector):
            return other.dot(self)
        return math.fsum(a * b for a, b in zip(self.values, other.values, strict=True))

    def cosine(self, other: DenseVector | SparseVector) -> float:
        """The cosine of the angle, in [-1, 1]; 0.0 when one of them is zero."""
        return _cosine(self.dot(other), self.norm, other.norm)

    def normalized(self) -> DenseVector:
        """The vector of length 1 in the same direction; a zero vector stays as it is."""
        norm = self.norm
        return self if norm == 0.0 else DenseVector(value / norm for value in self.values)

    def to_sparse(self) -> SparseVector:
        found = [(index, value) for index, value in enumerate(self.values) if value != 0.0]
        return SparseVector([index for index, _ in found], [value for _, value in found], self.dim)

    def to_numpy(self) -> NDArray[np.float32]:
        """float32, shape (dim,)."""
        import numpy as np

        return np.asarray(self.values, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> DenseVector:
        return cls(record["values"])


@dataclass(slots=True, frozen=True)
class SparseVector:
    """A vector of `dim` numbers of which those at `indices` (ascending, distinct) are given and the rest are zero.

    Raises ConfigError when the parts do not fit together.
    """

    indices: tuple[int, ...]
    values: tuple[float, ...]
    dim: int

    def __init__(self, indices: Sequence[int], values: Sequence[float], dim: int) -> None:
        if len(indices) != len(values):
            raise ConfigError(f"A sparse vector with {len(indices)} indices has {len(values)} values")
        pairs = sorted((int(index), float(value)) for index, value in zip(indices, values, strict=True))
        places = tuple(index for index, _ in pairs)
        if len(set(places)) != len(places):
            raise ConfigError("A sparse vector names an index twice")
        if places and not (places[0] >= 0 and places[-1] < dim):
            raise ConfigError(f"A sparse vector of dimension {dim} has an index outside of it")
        numbers = tuple(value for _, value in pairs)
        if not all(map(math.isfinite, numbers)):
            raise ConfigError("A sparse vector needs finite numbers")
        object.__setattr__(self, "indices", places)
        object.__setattr__(self, "values", numbers)
        object.__setattr__(self, "dim", int(dim))

    @property
    def norm(self) -> float:
        """The Euclidean length."""
        return math.sqrt(math.fsum(value * value for value in self.values))

    def dot(self, other: DenseVector | SparseVector) -> float:
        """The inner product. Raises ConfigError when the dimensions differ."""
        _same_dim(self.dim, other.dim)
        if isinstance(other, DenseVector):
            return math.fsum(
                value * other.values[index] for index, value in zip(self.indices, self.values, strict=True)
            )
        theirs = dict(zip(other.indices, other.values, strict=True))
        return math.fsum(value * theirs.get(i, 0.0) for i, value in zip(self.indices, self.values, strict=True))

    def cosine(self, other: DenseVector | SparseVector) -> float:
        """The cosine of the angle, in [-1, 1]; 0.0 when one of them is zero."""
        return _cosine(self.dot(other), self.norm, other.norm)

    def to_dense(self) -> DenseVector:
        numbers = [0.0] * self.dim
        for index, value in zip(self.indices, self.values, strict=True):
            numbers[index] = value
        return DenseVector(numbers)

    def to_dict(self) -> dict[str, Any]:
        return {"indices": list(self.indices), "values": list(self.values), "dim": self.dim}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SparseVector:
        return cls(record["indices"], record["values"], record["dim"])


def _same_dim(mine: int, theirs: int) -> None:
    if mine != theirs:
        raise ConfigError(f"Vectors of {mine} and {theirs} dimensions do not go together")


def _cosine(dot: float, a: float, b: float) -> float:
    return 0.0 if a == 0.0 or b == 0.0 else max(-1.0, min(1.0, dot / a / b))
