"""The manifest of a checkpoint: what belongs to it and where it lies. Written last, so that it says: complete.

One JSON file of two fields: the content, and the SHA-256 of the content's bytes. A file cut short or changed is told
from a good one without looking at anything else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sage.common.errors import StateError
from sage.core.checkpoint.base import TaskSnapshot
from sage.core.state.base import StateSnapshot

__all__ = ["InFlight", "Manifest", "OperatorEntry", "SubtaskEntry", "decode", "encode", "manifest_of"]

VERSION = 1


@dataclass(slots=True)
class SubtaskEntry:
    """One subtask of an operator. Its files lie in `<operator id>-<subtask>/` of the checkpoint's folder."""

    keyed: StateSnapshot | None = None
    operator: StateSnapshot | None = None
    finished: bool = False


@dataclass(slots=True)
class OperatorEntry:
    """One operator; `subtasks[i]` is subtask i, and there are as many as its parallelism was."""

    name: str
    subtasks: list[SubtaskEntry] = field(default_factory=list)


@dataclass(slots=True)
class InFlight:
    """Records that an unaligned barrier overtook on the way to a subtask; `file` holds them, in its task's folder."""

    operator_id: str  # the receiving task's first operator
    subtask: int
    file: str
    records: int


@dataclass(slots=True)
class Manifest:
    """A complete checkpoint. Times in seconds since the epoch; `operators` by their stable id."""

    checkpoint_id: int
    job: str
    name: str
    kind: str
    triggered_at: float
    completed_at: float
    operators: dict[str, OperatorEntry]
    in_flight: list[InFlight] = field(default_factory=list)
    written: int = 0
    size: int = 0
    version: int = VERSION

    @property
    def finished(self) -> bool:
        """Whether the job had come to its end: nothing is left to do after a restore."""
        return all(entry.finished for operator in self.operators.values() for entry in operator.subtasks)

    def snapshots(self) -> list[tuple[str, int, StateSnapshot]]:
        """Every state in it, with its operator's id and subtask."""
        return [
            (operator_id, subtask, state)
            for operator_id, operator in self.operators.items()
            for subtask, entry in enumerate(operator.subtasks)
            for state in (entry.keyed, entry.operator)
            if state is not None
        ]


class _Envelope(msgspec.Struct):
    sha256: str
    content: msgspec.Raw


def encode(manifest: Manifest) -> bytes:
    """The file's bytes."""
    content = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Envelope(hashlib.sha256(content).hexdigest(), msgspec.Raw(content)))


def decode(data: bytes, path: Path) -> Manifest:
    """The manifest in a file's bytes. Raises StateError, naming `path`, for one that is torn or of another version."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        content = bytes(envelope.content)
        if hashlib.sha256(content).hexdigest() != envelope.sha256:
            raise _damaged(path, "its checksum is not that of its content")
        version = msgspec.json.decode(content, type=dict[str, Any]).get("version")
        if version != VERSION:
            raise StateError(
                f"The checkpoint {path.parent} was written by another version of SAGE",
                cause=f"its format is {version!r}, this one reads {VERSION}",
                details={"path": str(path)},
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes that are no UTF-8
        raise _damaged(path, f"not a whole manifest ({error})") from error


def _damaged(path: Path, why: str) -> StateError:
    return StateError(
        f"The checkpoint {path.parent} is damaged",
        cause=f"{path.name}: {why}",
        hint="restore an older one (sage run --restore ID FILE): records after it are then processed again",
        details={"path": str(path)},
    )


def manifest_of(
    job: str,
    name: str,
    kind: str,
    snapshots: list[TaskSnapshot],
    names: dict[str, str],
    *,
    checkpoint_id: int,
    triggered_at: float,
    completed_at: float,
) -> Manifest:
    """The manifest of a checkpoint to which every subtask has given its part. `names`: operator id → name."""
    operators: dict[str, OperatorEntry] = {}
    in_flight: list[InFlight] = []
    for task in sorted(snapshots, key=lambda snapshot: (snapshot.task, snapshot.subtask)):
        for part in task.operators:
            entry = operators.setdefault(part.operator_id, OperatorEntry(names.get(part.operator_id, "")))
            assert len(entry.subtasks) == task.subtask, "each operator has one part of each subtask"
            entry.subtasks.append(SubtaskEntry(part.keyed, part.operator, task.finished))
        in_flight.extend(InFlight(*kept) for kept in task.in_flight)
    states = [s for task in snapshots for part in task.operators for s in (part.keyed, part.operator) if s is not None]
    return Manifest(
        checkpoint_id=checkpoint_id,
        job=job,
        name=name,
        kind=kind,
        triggered_at=triggered_at,
        completed_at=completed_at,
        operators=operators,
        in_flight=in_flight,
        written=sum(state.written for state in states),
        size=sum(state.size for state in states),
    )
