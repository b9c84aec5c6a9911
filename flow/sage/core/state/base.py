"""What the runtime and operators need of a state backend. Semantics and names follow Flink's KeyedStateBackend.

A key belongs to one of 128 key groups (`sage.core.runtime.partition.key_group`); a subtask owns a range of groups, and
a snapshot can be read group by group, so that a restore with another parallelism takes what belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sage.common.errors import PipelineError

if TYPE_CHECKING:
    from sage.core.state.ttl import Ttl

__all__ = [
    "NO_KEY",
    "KeyedStateBackend",
    "MapTable",
    "OperatorStateBackend",
    "RawState",
    "SnapshotRequest",
    "StateSnapshot",
    "StateTable",
]


class _NoKey:
    """The current key before the first record: nothing can be looked up with it."""

    def __hash__(self) -> int:
        raise PipelineError(
            "There is no key whose state this could be",
            cause="state belongs to the key of a record, and open() runs before the first one",
            hint="read and write state where records or timers are processed",
        )


NO_KEY = _NoKey()


@dataclass(slots=True, frozen=True)
class SnapshotRequest:
    """A subtask's part of a checkpoint.

    `folder` belongs to this operator and subtask alone and exists; `shared` is the job's folder of files that several
    checkpoints use (SST files by hard link; a name is used once and never rewritten). `previous` is this operator's
    snapshot in the last completed checkpoint, or None: what it holds need not be written again. `savepoint`: everything
    goes into `folder`, in the form that every backend can read, and `previous` does not count.
    """

    checkpoint_id: int
    folder: Path
    shared: Path
    previous: StateSnapshot | None = None
    savepoint: bool = False


@dataclass(slots=True)
class StateSnapshot:
    """Where a subtask's state lies. Plain data: it stands in the checkpoint's manifest as JSON.

    `files`: paths relative to the request's `folder`, which `restore` gets back with the snapshot (those in `shared`
    lead out of it by `..`, so that checkpoints can be moved together); `written` counts the bytes that this checkpoint
    added, `size` all bytes it refers to. `schema` maps state names to their fingerprint.
    """

    backend: str
    groups: tuple[int, int]  # first and last key group, both included; (0, -1) for operator state
    files: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, str] = field(default_factory=dict)
    written: int = 0
    size: int = 0


class StateTable(Protocol):
    """One named state: a value for each (current key, namespace). The namespace is None, or a window.

    Mutable values (lists, dicts) are the table's own: changed in place they must be `put` again, so that a backend on
    disk sees the change.
    """

    def get(self, namespace: Hashable = None) -> Any:
        """The value for the backend's current key; None when there is none."""

    def put(self, value: Any, namespace: Hashable = None) -> None:
        """Set the value for the current key."""

    def clear(self, namespace: Hashable = None) -> None:
        """Remove the value for the current key."""

    def merge(self, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]) -> None:
        """For the current key: combine the values of the namespaces `sources` into that of `target` (sessions)."""

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        """All keys with a value in the namespace."""


class MapTable(Protocol):
    """One named state that is a map: entries for each (current key, namespace). None is no value."""

    def get(self, entry: Hashable, namespace: Hashable = None) -> Any:
        """The value of an entry; None when there is none."""

    def put(self, entry: Hashable, value: Any, namespace: Hashable = None) -> None:
        """Set an entry."""

    def remove(self, entry: Hashable, namespace: Hashable = None) -> None:
        """Remove an entry."""

    def items(self, namespace: Hashable = None) -> list[tuple[Any, Any]]:
        """All entries, as they are now."""

    def clear(self, namespace: Hashable = None) -> None:
        """Remove all entries."""

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        """All keys (of the backend) with an entry in the namespace."""


class RawState(Protocol):
    """State that an operator keeps in a form of its own (timers): dumped and loaded by key group."""

    def dump(self) -> Iterable[tuple[int, bytes]]:
        """(key group, bytes) pairs; called in the task's thread, gone through once and maybe in another: what changes
        later must not show."""

    def load(self, parts: Iterable[tuple[int, bytes]]) -> None:
        """What `dump` gave, of the groups that this subtask owns now (of several subtasks, maybe)."""


class KeyedStateBackend(Protocol):
    """The keyed state of one operator in one subtask. `key` is the current key: set before every access.

    User-facing states (ValueState, ListState, …) are made from descriptors by `sage.core.state.handles`.
    """

    key: Any

    def now_ms(self) -> int:
        """Processing time, for state that expires."""

    def table(self, name: str, schema: str, *, ttl_ms: int | None = None, ttl: Ttl | None = None) -> StateTable:
        """The table of that name. Raises StateError when `schema`, its fingerprint, is not that of the snapshot.

        `ttl_ms`: a value is gone that long after it was last put (processing time); `ttl` says more than that.
        """

    def map_table(self, name: str, schema: str, *, ttl: Ttl | None = None) -> MapTable:
        """The table of a map state. Names are shared with `table`."""

    def raw(self, name: str, state: RawState) -> None:
        """Include a raw state in snapshots; loaded at once when the backend was restored."""

    def snapshot(self, request: SnapshotRequest) -> Callable[[], StateSnapshot]:
        """The synchronous part now; what is returned does the rest and may run in another thread."""

    def restore(self, snapshots: list[tuple[Path, StateSnapshot]]) -> None:
        """Fill from snapshots of any subtasks of this operator, each with its folder; called before `table`.

        Takes only the groups that this subtask owns. Raises StateError for a torn or missing file, naming it.
        """

    def flush_slice(self) -> None:
        """Called now and then by the task between batches: write a bounded part of what is dirty (disk backends)."""

    @property
    def size(self) -> int:
        """Bytes of state, roughly."""

    def close(self) -> None:
        """Let go of files and memory."""


class OperatorStateBackend(Protocol):
    """State of a subtask that belongs to no key (Flink's operator state), as lists of plain values.

    `get(name)` gives what was restored or last put. On restore with another parallelism `list` states are dealt out
    evenly, `union` states are given whole to every subtask, `broadcast` states (equal in all) are given to every one.
    """

    def get(self, name: str, mode: str = "list") -> list[Any]:
        """mode: list, union or broadcast."""

    def put(self, name: str, values: list[Any], mode: str = "list") -> None:
        """Replace what will be in the next snapshot. Values are msgpack-able, or this job's own pickles."""

    def snapshot(self, request: SnapshotRequest) -> Callable[[], StateSnapshot]:
        """As KeyedStateBackend.snapshot."""

    def restore(self, snapshots: list[tuple[Path, StateSnapshot]], subtask: int, parallelism: int) -> None:
        """Called before the first `get`."""
