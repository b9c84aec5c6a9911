"""A store on disk: a folder with `index.json` (ids, metadata, which file holds the vectors) and one `.npz` file.

The JSON file is replaced last and in one step, so a reader finds either the old store or the new one. Nothing is
pickled: a folder from elsewhere can be opened without trusting it.
"""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sage.common.atomic import write_json
from sage.common.errors import ServiceError, StateError
from sage.middleware.services.vdb.arguments import checked_ids, checked_metadata
from sage.middleware.services.vdb.flat_index import Vectors

__all__ = ["Snapshot", "exists", "load", "save"]

MANIFEST = "index.json"
VERSION = 1


@dataclass(slots=True)
class Snapshot:
    """Everything a store holds; row i of `vectors` belongs to `ids[i]` and `metadata[i]`."""

    dim: int | None
    metric: str
    ids: list[str | int]
    metadata: list[dict[str, Any]]
    vectors: Vectors


def exists(folder: Path) -> bool:
    """Whether a store was saved there."""
    return (folder / MANIFEST).is_file()


def save(folder: Path, snapshot: Snapshot) -> None:
    """Write the store. Raises ServiceError (metadata that JSON cannot hold, a full or read-only disk)."""
    for key, metadata in zip(snapshot.ids, snapshot.metadata, strict=True):
        try:
            json.dumps(metadata)
        except (TypeError, ValueError) as error:
            raise ServiceError(
                f"The metadata of vector {key!r} cannot be saved", cause=str(error), hint="use plain JSON values"
            ) from error
    name = f"vectors-{uuid.uuid4().hex[:12]}.npz"
    manifest = {"version": VERSION, "dim": snapshot.dim, "metric": snapshot.metric, "vectors": name}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "wb") as stream:
            np.savez(stream, vectors=snapshot.vectors)
            stream.flush()
            os.fsync(stream.fileno())
        write_json(folder / MANIFEST, manifest | {"ids": snapshot.ids, "metadata": snapshot.metadata})
        for old in folder.glob("vectors-*.npz"):
            if old.name != name:
                old.unlink(missing_ok=True)
    except (OSError, StateError) as error:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
        raise ServiceError(f"The vectors cannot be saved in {folder}", cause=str(error)) from error


def load(folder: Path) -> Snapshot:
    """Read a store. Raises ServiceError when there is none or it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ServiceError(f"{folder} was saved by another version", cause=f"format {manifest['version']!r}")
        name = Path(str(manifest["vectors"])).name
        with open(folder / name, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            vectors = np.asarray(archive["vectors"], np.float32)
        found = Snapshot(manifest["dim"], manifest["metric"], manifest["ids"], manifest["metadata"], vectors)
        if not len(found.ids) == len(found.metadata) == len(vectors) or vectors.ndim != 2:
            raise ValueError(f"{len(found.ids)} ids, {len(found.metadata)} metadata, {len(vectors)} vectors")
        if len(set(checked_ids(found.ids))) != len(found.ids):
            raise ValueError("an id stands there twice")
        checked_metadata(found.metadata, len(found.ids))
    except FileNotFoundError as error:
        raise ServiceError(f"There is no saved vector store in {folder}", cause=str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ServiceError(
            f"The vector store in {folder} is damaged", cause=f"{type(error).__name__}: {error}"
        ) from error
    return found
