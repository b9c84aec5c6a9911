"""A job's stable identity, its folder of checkpoints, and from which of them a run continues.

The identity is made of the environment's name and the project's folder, so that a rerun of the same file finds what an
earlier run left. `run.json` says which checkpoints the last run made (ids from `first_id` on) and what it began with,
so that `latest` never means a checkpoint of a run before that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.common.atomic import read_json, write_json
from sage.common.errors import StateError
from sage.core.checkpoint.manifest import Manifest
from sage.core.checkpoint.storage import STOPPED, CheckpointFolder, CheckpointStorage, check_files, read_manifest

__all__ = ["LATEST", "JobFolder", "RestorePoint", "identity"]

LATEST = "latest"
RUN = "run.json"


def identity(name: str, project: Path, number: int = 1) -> str:
    """`<name>-<hash of the project's folder>`; `number` counts the jobs that one environment submits."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40] or "job"
    digest = hashlib.sha256(f"{name}\0{os.path.realpath(project)}".encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{word}-{digest}" + (f"-{number}" if number > 1 else "")


@dataclass(slots=True, frozen=True)
class RestorePoint:
    """A checkpoint to continue from."""

    folder: CheckpointFolder
    manifest: Manifest


class JobFolder:
    """The folder of one identity, locked by the run that uses it. Raises StateError throughout."""

    def __init__(self, root: Path, *, retained: int = 1) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - keep symlinks
        self.storage = CheckpointStorage(self.root, retained=retained)
        self._lock: int | None = None

    def acquire(self) -> None:
        """Take the folder for this run; the lock goes with the process, however it ends."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"Checkpoints cannot be kept in {self.root}", cause=error.strerror or str(error)
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise StateError(
                f"Another run of this job uses {self.root}",
                cause=f"pid {holder}" if holder else "",
                hint="stop that one first, or give the environment another name",
            ) from error
        self._lock = fd
        with suppress(OSError):  # a full disk; the lock holds without a pid in the file
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def resolve(self, wanted: str) -> RestorePoint | None:
        """What `--restore` names: `latest`, an id, or the folder of a checkpoint. None only for `latest`: there is
        none. A damaged checkpoint is refused, never passed over: what came after the one before it may be out already.
        """
        if wanted == LATEST:
            return self._latest()
        if wanted.isdigit():
            folder = self.storage.find(int(wanted))
            if folder is None:
                known = ", ".join(map(str, self.storage.completed())) or "none"
                raise StateError(f"This job has no checkpoint {wanted}", cause=f"in {self.root} there are: {known}")
            return self._read(folder)
        path = Path(os.path.abspath(Path(wanted).expanduser()))  # noqa: PTH100 - keep symlinks
        return self._read(CheckpointFolder(0, path, path.parent / "shared"))

    def begin_run(self, start: RestorePoint | None) -> int:
        """Note what this run begins with; returns the id of its first checkpoint."""
        self.storage.prepare()
        first = self.storage.next_id
        if start is not None:
            first = max(first, start.manifest.checkpoint_id + 1)
        write_json(
            self.root / RUN,
            {
                "first_id": first,
                "started_from": str(start.folder.path) if start is not None else None,
                "started_at": time.time(),
                "pid": os.getpid(),
            },
        )
        (self.root / STOPPED).unlink(missing_ok=True)
        return first

    @property
    def unfinished(self) -> int | None:
        """The id of a checkpoint from which the last run, which did not come to its end, could go on."""
        try:
            point = self._latest()
        except StateError:
            return None
        return point.manifest.checkpoint_id if point is not None and not point.manifest.finished else None

    def _latest(self) -> RestorePoint | None:
        stopped = self._object(STOPPED).get("path")
        if stopped:
            return self._read(CheckpointFolder(0, Path(stopped), self.storage.shared))
        run = self._object(RUN)
        ids = [number for number in self.storage.completed() if number >= run.get("first_id", 0)]
        if ids:
            folder = self.storage.find(ids[-1])
            assert folder is not None, "it was listed"
            return self._read(folder)
        origin = run.get("started_from")
        return self._read(CheckpointFolder(0, Path(origin), Path(origin).parent / "shared")) if origin else None

    def _object(self, name: str) -> dict[str, Any]:
        try:
            found = read_json(self.root / name)
        except FileNotFoundError:
            return {}
        if not isinstance(found, dict):
            raise StateError(f"{self.root / name} is damaged", cause="it is no JSON object")
        return found

    def _read(self, folder: CheckpointFolder) -> RestorePoint:
        manifest = read_manifest(folder.path)
        check_files(folder.path, manifest)
        return RestorePoint(CheckpointFolder(manifest.checkpoint_id, folder.path, folder.shared), manifest)
