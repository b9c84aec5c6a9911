"""`VDBService`: vectors with ids and metadata, and the nearest of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from sage.common.errors import ServiceError
from sage.middleware.services.vdb import storage
from sage.middleware.services.vdb.arguments import (
    Filter,
    VectorId,
    checked_ids,
    checked_metadata,
    matrix,
    predicate,
    whole_number,
)
from sage.middleware.services.vdb.flat_index import FlatIndex, Metric, Vectors

__all__ = ["Hit", "VDBService"]


class Hit(dict[str, Any]):
    """A found vector: `{"id", "score", "metadata"}`, also as attributes. The higher the score, the nearer."""

    @property
    def id(self) -> VectorId:
        return self["id"]  # type: ignore[no-any-return]

    @property
    def score(self) -> float:
        return self["score"]  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[str, Any]:
        return self["metadata"]  # type: ignore[no-any-return]


class VDBService:
    """A vector store in memory: exact search by cosine, inner product (`ip`) or Euclidean distance (`l2`).

    The first vectors fix the dimension unless `dim` does. With `path` the store is loaded from that folder if it was
    saved there, and saved there by `close()`. Methods may be called from any thread.
    """

    def __init__(self, dim: int | None = None, *, metric: Metric = "cosine", path: str | Path | None = None) -> None:
        if metric not in get_args(Metric):
            raise ServiceError(f"There is no metric {metric!r}", cause=f"known: {', '.join(get_args(Metric))}")
        self._metric: Metric = metric
        self._path = Path(path) if path is not None else None
        self._index = FlatIndex(whole_number("dim, the dimension,", dim), metric) if dim is not None else None
        self._ids: list[VectorId] = []
        self._rows: dict[VectorId, int] = {}
        self._metadata: list[dict[str, Any]] = []
        self._next_id = 0
        self._changed = False
        self._searches = 0
        self._lock = threading.RLock()
        if self._path is not None and storage.exists(self._path):
            self.load_index()

    def add(
        self,
        vectors: npt.ArrayLike,
        ids: Sequence[VectorId] | VectorId | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
    ) -> list[VectorId]:
        """Add vectors, shape (n, dim) or (dim,), and return their ids; an id that exists is replaced.

        Without `ids` they are numbered. `metadata` is a mapping for each vector. For a single vector both may stand
        without a list around them. Raises ServiceError when dimension or lengths do not fit, a value is not finite, or
        an id is neither a string nor a whole number; nothing is added then.
        """
        rows = matrix(vectors)
        kept = checked_metadata(metadata, len(rows))
        given = checked_ids(ids) if ids is not None else None
        with self._lock:
            if rows.size:
                self._check(rows)
            chosen = self._numbered(len(rows)) if given is None else given
            if not len(chosen) == len(kept) == len(rows):
                raise ServiceError(
                    "Vectors, ids and metadata differ in number",
                    cause=f"{len(rows)} vectors, {len(chosen)} ids, {len(kept)} metadata",
                )
            if len(rows):
                self._put(rows, chosen, kept)
        return chosen

    def search(
        self,
        query: npt.ArrayLike,
        top_k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word for it
    ) -> Any:
        """The `top_k` nearest vectors, best first: a list of `Hit`; for a batch of queries a list of such lists.

        `filter` is a function of the metadata, or a mapping: a field must equal the value, or be one of a list.
        Raises ServiceError when the dimension does not fit.
        """
        top_k = whole_number("top_k", top_k)
        queries = matrix(query)
        batch = np.ndim(query) == 2
        accepts = predicate(filter)
        with self._lock:
            if not (batch and queries.size == 0):
                self._check(queries)
            self._searches += len(queries)
            if self._index is None or self._index.count == 0:
                found: list[list[Hit]] = [[] for _ in queries]
            else:
                scored = zip(queries, self._index.scores(queries), strict=True)
                found = [self._nearest(one, scores, top_k, accepts) for one, scores in scored]
        return found if batch else found[0]

    add_vectors = add
    search_vectors = search

    def get_vector(self, vector_id: VectorId) -> dict[str, Any] | None:
        """`{"id", "vector", "metadata"}`, the vector as a list of floats; None for an unknown id."""
        with self._lock:
            row = self._rows.get(vector_id)
            if row is None or self._index is None:
                return None
            vector = self._index.vectors[row].tolist()
            return {"id": vector_id, "vector": vector, "metadata": dict(self._metadata[row])}

    def delete_vectors(self, ids: Iterable[VectorId] | VectorId) -> int:
        """Remove these vectors; unknown ids are passed over. Returns how many were removed."""
        wanted = checked_ids(ids)
        with self._lock:
            return sum(self._remove(vector_id) for vector_id in wanted)

    def list_vectors(self, limit: int | None = None, offset: int = 0) -> list[dict[str, Any]]:
        """`{"id", "metadata"}` of each vector, in the order in which they were added first."""
        with self._lock:
            known = list(self._rows.items())[offset : None if limit is None else offset + limit]
            return [{"id": vector_id, "metadata": dict(self._metadata[row])} for vector_id, row in known]

    def count(self) -> int:
        """How many vectors there are."""
        return len(self._rows)

    __len__ = count

    def clear(self) -> None:
        """Remove everything; the dimension stays."""
        with self._lock:
            self._index = FlatIndex(self._index.dim, self._metric) if self._index is not None else None
            self._ids, self._rows, self._metadata = [], {}, []
            self._changed = True

    def save_index(self, path: str | Path | None = None) -> Path:
        """Write the store into a folder (default: the one given at the start), replacing what was saved there at once.

        Raises ServiceError: no folder named, metadata that JSON cannot hold, a full or read-only disk.
        """
        folder = self._folder(path)
        with self._lock:
            dim = self._index.dim if self._index is not None else None
            vectors = self._index.vectors if self._index is not None else np.empty((0, 0), np.float32)
            storage.save(folder, storage.Snapshot(dim, self._metric, self._ids, self._metadata, vectors))
            self._changed = False
        return folder

    def load_index(self, path: str | Path | None = None) -> int:
        """Replace what is here by what was saved in a folder; returns how many vectors that is. Raises ServiceError."""
        saved = storage.load(self._folder(path))
        if saved.metric != self._metric:
            raise ServiceError(
                "The saved store has another metric", cause=f"saved: {saved.metric}, this one: {self._metric}"
            )
        with self._lock:
            self._index = None
            if saved.dim is not None:
                self._index = FlatIndex(saved.dim, self._metric)
                self._index.append(saved.vectors.reshape(-1, saved.dim))
            self._ids, self._metadata = list(saved.ids), list(saved.metadata)
            self._rows = {vector_id: row for row, vector_id in enumerate(self._ids)}
            self._next_id = 0
            self._changed = False
            return len(self._ids)

    def stats(self) -> dict[str, Any]:
        """`count`, `dim`, `metric`, `memory_bytes` (of the vectors), `searches`, `path`."""
        with self._lock:
            return {
                "count": len(self._rows),
                "dim": self._index.dim if self._index is not None else None,
                "metric": self._metric,
                "memory_bytes": self._index.nbytes if self._index is not None else 0,
                "searches": self._searches,
                "path": str(self._path) if self._path is not None else None,
            }

    def close(self) -> None:
        """Save when a `path` was given and something changed; the store can still be used."""
        if self._path is not None and self._changed:
            self.save_index()

    def _check(self, rows: Vectors) -> None:
        if rows.shape[1] == 0:
            raise ServiceError("The vector has no dimensions", cause="it is empty")
        dim = self._index.dim if self._index is not None else rows.shape[1]
        if rows.shape[1] != dim:
            raise ServiceError(
                "The vector has the wrong dimension", cause=f"it has {rows.shape[1]}, this store holds {dim}"
            )

    def _numbered(self, count: int) -> list[VectorId]:
        chosen: list[VectorId] = []
        while len(chosen) < count:
            if self._next_id not in self._rows:
                chosen.append(self._next_id)
            self._next_id += 1
        return chosen

    def _put(self, rows: Vectors, ids: list[VectorId], metadata: list[dict[str, Any]]) -> None:
        if self._index is None:
            self._index = FlatIndex(rows.shape[1], self._metric)
        latest = {vector_id: position for position, vector_id in enumerate(ids)}
        new = [position for vector_id, position in latest.items() if vector_id not in self._rows]
        for vector_id, position in latest.items():
            row = self._rows.get(vector_id)
            if row is not None:
                self._index.replace(row, rows[position])
                self._metadata[row] = metadata[position]
        self._index.append(rows if len(new) == len(rows) else rows[new])
        for position in new:
            self._rows[ids[position]] = len(self._ids)
            self._ids.append(ids[position])
            self._metadata.append(metadata[position])
        self._changed = True

    def _remove(self, vector_id: VectorId) -> bool:
        row = self._rows.pop(vector_id, None)
        if row is None or self._index is None:
            return False
        self._index.remove(row)
        last, metadata = self._ids.pop(), self._metadata.pop()
        if last != vector_id:
            self._ids[row], self._metadata[row], self._rows[last] = last, metadata, row
        self._changed = True
        return True

    def _nearest(
        self, query: Vectors, scores: Vectors, top_k: int, accepts: Callable[[dict[str, Any]], object] | None
    ) -> list[Hit]:
        """The best rows that the filter accepts; equal scores in the order of the rows."""
        assert self._index is not None
        wanted = top_k if accepts is None else 4 * top_k
        while True:
            rows = _best(scores, wanted)
            chosen = rows if accepts is None else [row for row in rows if accepts(self._metadata[row])]
            if len(chosen) >= top_k or len(rows) == len(scores):
                break
            wanted *= 4
        picked = np.asarray(chosen[:top_k], np.intp)
        exact = self._index.refine(query, picked, scores[picked])
        order = np.argsort(-exact, kind="stable")
        return [
            Hit(id=self._ids[row], score=float(score), metadata=dict(self._metadata[row]))
            for row, score in zip(picked[order], exact[order], strict=True)
        ]

    def _folder(self, path: str | Path | None) -> Path:
        folder = Path(path) if path is not None else self._path
        if folder is None:
            raise ServiceError("No folder was named", hint="VDBService(path=...) or save_index(path)")
        return folder


def _best(scores: Vectors, count: int) -> npt.NDArray[np.intp]:
    """The rows of the `count` highest scores, best first; equal scores in the order of the rows."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > least)
        rows = np.sort(np.concatenate([above, np.flatnonzero(scores == least)[: count - len(above)]]))
    else:
        rows = np.arange(len(scores))
    order: npt.NDArray[np.intp] = rows[np.argsort(-scores[rows], kind="stable")]
    return order
