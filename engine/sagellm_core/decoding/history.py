"""The hidden states of a sequence's tokens, as contrastive search compares them (Su et al. 2022, section 3.2).

A history is a view of a store that only grows at its end. Forks share the store until one of them writes where another
has written; only then is it copied, so that the k candidates of a step cost k rows, not k histories.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(slots=True)
class _Store:
    """Unit rows (capacity, hidden), of which the first `length` are written."""

    rows: Tensor
    length: int


class HiddenHistory:
    """Unit hidden states of the tokens at positions `0 .. len-1`, in float32."""

    def __init__(self) -> None:
        self._store: _Store | None = None
        self._length = 0
        self._tail: Tensor | None = None

    def __len__(self) -> int:
        return self._length + (0 if self._tail is None else len(self._tail))

    def put(self, hidden: Tensor, position: int) -> None:
        """Set the states (tokens, hidden) of the tokens from `position` on; later ones are forgotten.

        A sequence that is computed again after preemption begins at 0 again.
        """
        self._keep(position)
        if self._tail is not None:
            self._commit(self._tail)
        self._tail = normalize(hidden.float(), dim=-1)

    def similarity(self) -> float:
        """The largest cosine between the newest token's state and those before it; 0 when there are none."""
        assert self._tail is not None, "put() comes first"
        newest = self._tail[-1]
        parts = [] if self._store is None or not self._length else [self._store.rows[: self._length]]
        if len(self._tail) > 1:
            parts.append(self._tail[:-1])
        return max((float((rows @ newest).max()) for rows in parts), default=0.0)

    def fork(self) -> HiddenHistory:
        """A history that is equal now and goes its own way."""
        if self._tail is not None:
            self._commit(self._tail)
            self._tail = None
        other = HiddenHistory()
        other._store, other._length = self._store, self._length
        return other

    def _keep(self, length: int) -> None:
        """Forget what lies at `length` and after."""
        if length > len(self):
            raise ValueError(f"a history of {len(self)} tokens cannot go on at {length}")
        if self._tail is not None and length < len(self):
            self._tail = self._tail[: length - self._length] if length > self._length else None
        self._length = min(self._length, length)
        if not length:
            self._store = None

    def _commit(self, rows: Tensor) -> None:
        """Append rows to the store: in place when it ends where this history ends, else in a copy."""
        end = self._length + len(rows)
        store = self._store
        if store is None or store.length != self._length or end > len(store.rows):
            grown = torch.empty(max(64, 2 * end), rows.shape[-1], device=rows.device)
            if store is not None:
                grown[: self._length] = store.rows[: self._length]
            store = self._store = _Store(grown, self._length)
        store.rows[self._length : end] = rows
        store.length = self._length = end
