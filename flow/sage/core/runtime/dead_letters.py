"""What becomes of records at which a function raises, where the job is to go on: left out, or kept as dead letters.

A dead letter is a line of JSON: when, where, the record (as JSON where it is that, else its repr), its event time, the
error. After a recovery records are processed again, so a letter may be written twice; its `record` tells.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

from sage.common.errors import PipelineError
from sage.core.graph.origin import raised_at
from sage.core.runtime import session
from sage.core.runtime.failure import OnError, RecordFailure, message, told
from sage.core.runtime.settings import FailurePolicy, RuntimeSettings

__all__ = ["DeadLetters", "LeftOut", "on_error"]

log = logging.getLogger("sage.core")


def on_error(settings: RuntimeSettings, path: Path) -> OnError | None:
    """What the settings ask for; `path`: where dead letters go when the user has named no place."""
    if settings.on_error is FailurePolicy.FAIL:
        return None
    if settings.on_error is FailurePolicy.SKIP:
        return LeftOut()
    return DeadLetters(Path(settings.dead_letter).expanduser() if settings.dead_letter is not None else path)


class LeftOut:
    """The record vanishes. The first one of each operator is told at the terminal, all are counted as its errors."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()

    def __call__(self, failure: RecordFailure) -> None:
        if self.first(failure):
            session.warn(f"{_told(failure)}: left out, like all that follow")

    def first(self, failure: RecordFailure) -> bool:
        """Whether this operator had no failure before."""
        with self._lock:
            known = failure.operator_id in self._known
            self._known.add(failure.operator_id)
        log.debug("%s", _told(failure))
        return not known


class DeadLetters:
    """The record goes to a file of JSON lines. Raises PipelineError, and so fails the job, when that is not possible:
    no record is lost in silence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = LeftOut()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path,)

    def __call__(self, failure: RecordFailure) -> None:
        if self._told.first(failure):
            session.warn(f"{_told(failure)}: kept in {self.path}, like all that follow")
        line = json.dumps(_letter(failure), ensure_ascii=False) + "\n"
        try:
            with self._lock:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self.path.open("ab", buffering=0) as file:  # in one piece: several processes may write
                    file.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise PipelineError(
                f"A dead letter cannot be written to {self.path}",
                cause=error.strerror or str(error),
                hint="free space, or name another file with dead_letter.path",
            ) from error


def _letter(failure: RecordFailure) -> dict[str, object]:
    where = raised_at(failure.error.__traceback__)
    return {
        "time": time.time(),
        "operator": failure.operator,
        "operator_id": failure.operator_id,
        "subtask": failure.subtask,
        "record": _plain(failure.record),
        "timestamp": failure.timestamp,
        "error": type(failure.error).__name__,
        "message": message(failure.error),
        "at": str(where) if where is not None else None,
    }


def _plain(record: object) -> object:
    """The record itself if it survives JSON unchanged, else `{"repr": …}`."""
    try:
        text = json.dumps(record, allow_nan=False)
        if json.loads(text) == record:
            return record
    except Exception:  # noqa: S110 - no JSON; or the user's own __eq__ raises
        pass
    try:
        return {"repr": repr(record)}
    except Exception:  # a user's class: the letter is written all the same
        return {"repr": object.__repr__(record)}


def _told(failure: RecordFailure) -> str:
    return f"{failure.operator!r} raised {told(failure.error)} at a record"
