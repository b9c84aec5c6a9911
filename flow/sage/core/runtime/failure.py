"""A user's exception, told as: which operator, at which line of the user's file, with which record."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.common.errors import PipelineError, SageError
from sage.core.graph.origin import Origin, raised_at

__all__ = ["OnError", "RecordFailure", "message", "operator_failed", "told"]

_SHOWN = 120  # characters of a record
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _SHOWN


@dataclass(slots=True, frozen=True)
class RecordFailure:
    """A record at which a function raised, though the job goes on. `timestamp`: its event time (ms), if it has one."""

    operator: str
    operator_id: str
    subtask: int
    record: Any
    timestamp: int | None
    error: Exception


OnError = Callable[[RecordFailure], None]  # called in the task's thread; may raise, to fail the job after all


def operator_failed(
    name: str, error: BaseException, origin: Origin, *, record: object = None, phase: str = ""
) -> PipelineError:
    """The PipelineError for what a function raised; `phase` says where when it was not at a record: `open()`."""
    where = raised_at(error.__traceback__) or origin
    cause = told(error)
    if isinstance(error, SystemExit):
        cause = f"it called exit({error.code!r}), which ends no program from inside a pipeline"
    at = f" in {phase}" if phase else f" at record {_shown(record)}"
    hint = f"look at {where}" if where == origin else f"look at {where}; the operator was added at {origin}"
    if isinstance(error, TypeError) and str(error).startswith("unhashable type") and where == origin:
        hint = f"a key must be hashable, such as a tuple in place of a list ({hint})"
    if isinstance(error, SageError) and error.hint:
        hint = f"{error.hint} ({hint})"
    return PipelineError(
        f"Operator {name!r} failed ({where})",
        cause=f"{cause}{at}",
        hint=hint,
        details={"operator": name, "file": where.file, "line": where.line, "error": type(error).__name__},
    )


def message(error: BaseException) -> str:
    """The exception's text; none where its `__str__`, a user's, raises itself."""
    try:
        return str(error)
    except Exception:
        return ""


def told(error: BaseException) -> str:
    """The exception's type and text; its type alone where there is no text."""
    text = message(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(record: object) -> str:
    text = _repr.repr(record)  # short for long collections, and for a __repr__ that raises
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
