"""Where SAGE keeps its state: one `.sage/` directory (SPEC P3).

.sage/
├── state.db            jobs and their metrics (SQLite)
├── llm/daemon.json     the daemons that run, written by the supervisor only
├── lock                held (flock) by the supervisor; names it
├── supervisor.sock     its control socket
├── logs/               one file a component
└── checkpoints/
"""

from __future__ import annotations

import os
from pathlib import Path

from sage.common.errors import StateError

__all__ = ["SageHome"]

_SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included


class SageHome:
    """One `.sage/` directory. Immutable and hashable; making one touches no disk."""

    __slots__ = ("root",)
    root: Path

    def __init__(self, root: Path | str) -> None:
        object.__setattr__(self, "root", Path(os.path.abspath(Path(root).expanduser())))  # noqa: PTH100 - keep symlinks

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"SageHome is immutable: cannot set {name!r}")

    def __repr__(self) -> str:
        return f"SageHome({str(self.root)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SageHome) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    def __reduce__(self) -> tuple[type[SageHome], tuple[str]]:
        return (SageHome, (str(self.root),))

    @classmethod
    def find(cls, start: Path | str | None = None) -> SageHome:
        """$SAGE_HOME, else the nearest `.sage/` at or above `start` (default: here), else `~/.sage`.

        Raises StateError when none of them exists and there is no home directory.
        """
        override = os.environ.get("SAGE_HOME")
        if override:
            return cls(override)
        try:
            here = Path(os.path.abspath(start)) if start is not None else Path.cwd()  # noqa: PTH100 - keep symlinks
        except FileNotFoundError:  # the current directory was removed
            here = Path("/")
        for folder in (here, *here.parents):
            if (folder / ".sage").is_dir():
                return cls(folder / ".sage")
        try:
            return cls(Path.home() / ".sage")
        except RuntimeError as error:
            raise StateError(
                "There is no place for SAGE's state",
                cause=str(error),
                hint="Name one:  export SAGE_HOME=/path/to/state",
            ) from error

    @property
    def state_db(self) -> Path:
        return self.root / "state.db"

    @property
    def llm_dir(self) -> Path:
        return self.root / "llm"

    @property
    def daemon_json(self) -> Path:
        return self.root / "llm" / "daemon.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def project(self) -> Path:
        """The directory that holds `.sage/`."""
        return self.root.parent

    @property
    def socket(self) -> Path:
        """The supervisor's control socket.

        A Unix socket's path is short by law of the kernel; for a deep `.sage/` the socket stands in a private
        directory under /tmp instead, named by the hash of the path.
        """
        path = self.root / "supervisor.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        import hashlib

        digest = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:24]
        return Path(f"/tmp/sage-{os.getuid()}") / f"{digest}.sock"  # noqa: S108 - 0700 and owned, checked on use

    def ensure(self) -> SageHome:
        """Make the directories (mode 0700) and return self. Raises StateError when that is not possible."""
        folder = self.root
        try:
            for folder in (self.root, self.llm_dir, self.logs, self.checkpoints):
                folder.mkdir(mode=0o700, parents=folder == self.root, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise _file_in_the_way(folder) from error
        except OSError as error:
            raise _unwritable(folder, error.strerror or str(error)) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise _unwritable(self.root, "no permission to write")
        return self


def _file_in_the_way(folder: Path) -> StateError:
    file = next(place for place in (folder, *folder.parents) if place.exists())
    return StateError(
        f"SAGE cannot keep its state in {folder}",
        cause=f"{file} is a file, not a folder",
        hint="Move the file away, or choose another place:  export SAGE_HOME=/path/to/state",
        details={"path": str(folder)},
    )


def _unwritable(folder: Path, why: str) -> StateError:
    return StateError(
        f"SAGE cannot write its state to {folder}",
        cause=why,
        hint="Give yourself write access to it, or choose another place:  export SAGE_HOME=/path/to/state",
        details={"path": str(folder)},
    )
