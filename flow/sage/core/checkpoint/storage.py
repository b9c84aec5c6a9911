"""Where the checkpoints of one job lie, and how they become complete, are found again and go away.

    <identity>/
    ├── lock              held (flock) by the run that uses the folder
    ├── run.json          which checkpoints belong to the last run
    ├── stopped.json      the savepoint that this run was stopped with
    ├── shared/           files that several checkpoints use
    ├── chk-7/            <operator id>-<subtask>/…, and last of all manifest.json
    └── sp-8/             a savepoint: complete in itself, never removed here

A checkpoint without a manifest does not exist. The manifest is written beside, synced and renamed, after everything
that it names was synced; so it is whole or absent, whatever happens to the process or the machine.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sage.common.atomic import write_json
from sage.common.errors import StateError
from sage.core.checkpoint.manifest import Manifest, decode, encode

__all__ = ["CheckpointFolder", "CheckpointStorage", "check_files", "read_manifest", "sync_tree"]

MANIFEST = "manifest.json"
STOPPED = "stopped.json"
_NAME = re.compile(r"(chk|sp)-(\d+)")


@dataclass(slots=True, frozen=True)
class CheckpointFolder:
    """A checkpoint that is being made, or one that is there."""

    checkpoint_id: int
    path: Path
    shared: Path

    def part(self, operator_id: str, subtask: int) -> Path:
        """The folder of one operator's subtask."""
        return self.path / f"{operator_id}-{subtask}"

    def make_part(self, operator_id: str, subtask: int) -> Path:
        """That folder, made."""
        folder = self.part(operator_id, subtask)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


class CheckpointStorage:
    """The folder of one job. Used by one thread at a time; `CheckpointFolder`s may be written from several."""

    def __init__(self, root: Path, *, retained: int = 1) -> None:
        self.root = root
        self.shared = root / "shared"
        self._retained = retained

    def prepare(self) -> None:
        """Make the folder, and remove what unfinished checkpoints of earlier runs left. Raises StateError."""
        try:
            self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in self._folders():
                if not (folder / MANIFEST).exists():
                    shutil.rmtree(folder, ignore_errors=True)
            self._prune_shared()
        except OSError as error:
            raise _unwritable(self.root, error) from error

    @property
    def next_id(self) -> int:
        """An id above all that are there."""
        return max((_number(folder) for folder in self._folders()), default=0) + 1

    def begin(self, checkpoint_id: int, *, savepoint: bool = False, path: Path | None = None) -> CheckpointFolder:
        """A folder for a new checkpoint; `path` is where the user wants a savepoint: it may not hold anything, as all
        that it holds goes when the savepoint fails. Raises StateError."""
        folder = path if path is not None else self.root / f"{'sp' if savepoint else 'chk'}-{checkpoint_id}"
        try:
            if (folder / MANIFEST).exists():
                raise StateError(f"There is a savepoint at {folder} already", hint="name another folder")
            if path is not None and folder.is_dir() and any(folder.iterdir()):
                raise StateError(f"The folder {folder} is not empty", hint="name a new folder for the savepoint")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return CheckpointFolder(checkpoint_id, folder, self.shared)

    def complete(self, folder: CheckpointFolder, manifest: Manifest) -> None:
        """From here on the checkpoint exists. Raises StateError when it cannot be written; then it does not exist."""
        target = folder.path / MANIFEST
        temporary = folder.path / f".{MANIFEST}.tmp"
        try:
            sync_tree(folder.path)
            _sync_folder(folder.shared)
            with temporary.open("wb") as file:
                file.write(encode(manifest))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(folder.path)
            _sync_folder(folder.path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _unwritable(folder.path, error) from error

    def note_stop(self, path: Path) -> None:
        """The job was stopped with this savepoint: it is what `latest` means, until another run begins."""
        write_json(self.root / STOPPED, {"path": str(path)})

    def discard(self, folder: CheckpointFolder) -> None:
        """Remove an unfinished checkpoint; late writers may fail or leave files, which `prepare` removes."""
        if not (folder.path / MANIFEST).exists():
            shutil.rmtree(folder.path, ignore_errors=True)

    def prune(self, keep: Iterable[int] = ()) -> list[int]:
        """Remove all but the newest checkpoints (and those to `keep`); returns what went. What cannot be removed now
        stays until the next time."""
        completed = self.completed()
        spared = {*completed[-self._retained :], *keep}
        gone = [checkpoint_id for checkpoint_id in completed if checkpoint_id not in spared]
        for checkpoint_id in gone:
            folder = self.root / f"chk-{checkpoint_id}"
            with suppress(OSError):  # the manifest first: what is half removed does not exist
                (folder / MANIFEST).unlink()
            shutil.rmtree(folder, ignore_errors=True)
        if gone:
            self._prune_shared()
        return gone

    def completed(self) -> list[int]:
        """The ids of the checkpoints (no savepoints) with a manifest, oldest first."""
        return sorted(
            _number(folder)
            for folder in self._folders()
            if folder.name.startswith("chk-") and (folder / MANIFEST).exists()
        )

    def find(self, checkpoint_id: int) -> CheckpointFolder | None:
        """The checkpoint or savepoint of that id."""
        for name in (f"chk-{checkpoint_id}", f"sp-{checkpoint_id}"):
            if (self.root / name / MANIFEST).exists():
                return CheckpointFolder(checkpoint_id, self.root / name, self.shared)
        return None

    def checkpoint(self, checkpoint_id: int) -> CheckpointFolder:
        """Where the checkpoint or savepoint of that id is, or was."""
        found = self.find(checkpoint_id)
        return found or CheckpointFolder(checkpoint_id, self.root / f"chk-{checkpoint_id}", self.shared)

    def _folders(self) -> list[Path]:
        try:
            return [entry for entry in self.root.iterdir() if _NAME.fullmatch(entry.name)]
        except FileNotFoundError:
            return []

    def _prune_shared(self) -> None:
        """Remove shared files that no manifest names; nothing while one cannot be read."""
        used: set[Path] = set()
        for folder in self._folders():
            if (folder / MANIFEST).exists():
                try:
                    manifest = read_manifest(folder)
                except StateError:
                    return
                used |= {path for path in _files(folder, manifest) if path.is_relative_to(self.shared)}
        for file in self.shared.rglob("*"):
            if file.is_file() and file not in used:
                with suppress(OSError):
                    file.unlink()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint's folder. Raises StateError when there is none or it is torn."""
    path = folder / MANIFEST
    try:
        manifest = decode(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise StateError(
            f"There is no checkpoint at {folder}",
            cause=f"it holds no {MANIFEST}",
            hint="--restore latest, or the number or the folder of one:  ls .sage/checkpoints/*",
        ) from error
    except OSError as error:
        raise StateError(f"The checkpoint {folder} cannot be read", cause=error.strerror or str(error)) from error
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises StateError for a file that the manifest names and that is not there."""
    for file in _files(folder, manifest):
        if not file.exists():
            raise StateError(
                f"The checkpoint {folder} is damaged",
                cause=f"{file} is missing",
                hint="restore an older one (sage run --restore ID FILE): records after it are then processed again",
                details={"path": str(file)},
            )


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below; what hard links share is synced once through any of them."""
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                fd = os.open(os.path.join(path, name), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH118 - hot
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        _sync_folder(Path(path))


def _files(folder: Path, manifest: Manifest) -> list[Path]:
    """What the manifest names, as normal paths."""
    found = [
        folder / f"{operator_id}-{subtask}" / name
        for operator_id, subtask, state in manifest.snapshots()
        for name in state.files
    ]
    found += [folder / f"{kept.operator_id}-{kept.subtask}" / kept.file for kept in manifest.in_flight]
    return [Path(os.path.normpath(path)) for path in found]


def _number(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    assert match is not None, "only such folders are listed"
    return int(match[2])


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"A checkpoint cannot be written to {path}",
        cause=error.strerror or str(error),
        hint=f"free space or give yourself write access to {path.parent}",
        details={"path": str(path)},
    )
