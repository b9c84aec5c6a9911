"""Where in the user's file something was written."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType

__all__ = ["Origin", "describe", "is_ours", "raised_at", "raised_in"]

_SAGE = str(Path(__file__).parents[2])
_OURS = tuple(f"{_SAGE}{os.sep}{part}{os.sep}" for part in ("core", "middleware", "utils"))
_PACKAGES = frozenset({"sage", "sagellm_core", "sagellm_protocol"})
_STDLIB = str(Path(os.__file__).parent)
GENERATED = "<sage chain"


@dataclass(slots=True, frozen=True)
class Origin:
    """A line of a file; `file` is as Python reports it."""

    file: str
    line: int

    @classmethod
    def of_caller(cls) -> Origin:
        """The nearest line on the stack that is not the engine's own."""
        frame = sys._getframe(1)
        while frame.f_back is not None and is_ours(frame.f_code.co_filename):
            frame = frame.f_back
        return cls(frame.f_code.co_filename, frame.f_lineno)

    def __str__(self) -> str:
        return f"{_short(self.file)}:{self.line}"


def is_ours(file: str) -> bool:
    """True for code of the dataflow engine, the generated chains included."""
    return file.startswith((*_OURS, GENERATED))


def raised_at(trace: TracebackType | None) -> Origin | None:
    """The deepest line of the user's own code in a traceback; library code only when there is nothing else.

    None when an exception came straight out of a built-in function.
    """
    own: Origin | None = None
    library: Origin | None = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_ours(file):
            here = Origin(file, trace.tb_lineno)
            if _is_library(trace.tb_frame):
                library = here
            else:
                own = here
        trace = trace.tb_next
    return own or library


def raised_in(frame: FrameType | None) -> Origin | None:
    """The deepest line of the user's own code that a running frame is at; None when there is none."""
    while frame is not None:
        if not is_ours(frame.f_code.co_filename) and not _is_library(frame):
            return Origin(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def describe(target: object) -> str:
    """`lambda (pipeline.py:4)`, `parse (pipeline.py:9)`, `Embed`: a function as an error message names it."""
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    code: object = getattr(getattr(target, "__func__", target), "__code__", None)
    label = "lambda" if name.endswith("<lambda>") else name.rpartition("<locals>.")[2]
    return f"{label} ({_short(code.co_filename)}:{code.co_firstlineno})" if isinstance(code, CodeType) else label


def _is_library(frame: FrameType) -> bool:
    """Other people's code, and SAGE's own, which in a checkout stands in folders like the user's."""
    file = frame.f_code.co_filename
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package in _PACKAGES or "site-packages" in file or file.startswith((_STDLIB, "<frozen"))


def _short(file: str) -> str:
    """Relative to the current folder when it lies below it."""
    try:
        relative = os.path.relpath(file)
    except (ValueError, OSError):
        return file
    return file if file.startswith("<") or relative.startswith("..") else relative
