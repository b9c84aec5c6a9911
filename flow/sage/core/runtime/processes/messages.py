"""What the master of a job and its workers tell each other."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import TypeAlias

from sage.common.errors import PipelineError, SageError
from sage.core.checkpoint.base import TaskSnapshot
from sage.core.runtime.events import Barrier
from sage.core.runtime.metrics import TaskNumbers

__all__ = [
    "Acknowledge",
    "Call",
    "Decline",
    "Done",
    "Ended",
    "Failed",
    "FromWorker",
    "Report",
    "TaskReport",
    "ToWorker",
    "Warn",
    "Write",
    "portable",
]


@dataclass(slots=True, frozen=True)
class Call:
    """To a worker: trigger a barrier, tell of a checkpoint that is complete or aborted (its number), or one of release,
    stop, abort, close."""

    method: str
    argument: Barrier | int | None = None


@dataclass(slots=True, frozen=True)
class Acknowledge:
    """See CheckpointListener."""

    snapshot: TaskSnapshot


@dataclass(slots=True, frozen=True)
class Decline:
    """See CheckpointListener."""

    barrier: Barrier
    task: int
    subtask: int
    reason: SageError


@dataclass(slots=True, frozen=True)
class Ended:
    """A subtask has processed all its input."""

    task: int
    subtask: int


@dataclass(slots=True, frozen=True)
class TaskReport:
    """A subtask now. `busy_since`: time.monotonic() when the call that it is at began; `at`: the user's line."""

    task: int
    subtask: int
    name: str
    numbers: TaskNumbers
    running: bool
    busy_since: float | None
    at: str


@dataclass(slots=True, frozen=True)
class Report:
    """All subtasks of a worker."""

    tasks: list[TaskReport]


@dataclass(slots=True, frozen=True)
class Failed:
    """A task of the worker, or the worker itself, has failed. `cause` is what the error came from, pickled."""

    error: PipelineError
    cause: BaseException | None


@dataclass(slots=True, frozen=True)
class Write:
    """What the worker's functions wrote to stdout or stderr."""

    stream: str
    text: str


@dataclass(slots=True, frozen=True)
class Warn:
    """For the person at the terminal."""

    text: str


@dataclass(slots=True, frozen=True)
class Done:
    """All tasks of the worker have ended and its services are closed."""

    tasks: list[TaskReport]


ToWorker: TypeAlias = Call
FromWorker: TypeAlias = Acknowledge | Decline | Ended | Report | Failed | Write | Warn | Done


def portable(error: BaseException, worker: int) -> BaseException:
    """The error as another process can have it: itself where it survives pickling, with the traceback as a note."""
    from sage.core.runtime.processes.frames import packed

    text = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"in worker process {worker}:\n{text}")
    try:
        pickle.loads(packed(error)[0])  # noqa: S301 - made here
    except Exception:
        made = PipelineError(f"{type(error).__name__}: {error}")
        made.add_note(f"in worker process {worker}:\n{text}")
        return made
    return error
