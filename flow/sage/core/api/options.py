"""The options that every operator takes."""

from __future__ import annotations

import difflib
from typing import TypedDict

from sage.common.errors import PipelineError
from sage.core.graph.origin import Origin

__all__ = ["OperatorOptions", "checked_options"]


class OperatorOptions(TypedDict, total=False):
    """`name` shows in messages, metrics and `explain()` (default: what the operator is called). `parallelism` is the
    number of parallel subtasks (default: the environment's). `uid` makes checkpoints find the operator's state though
    the program around it has changed (default: derived from the operator and what stands upstream)."""

    name: str | None
    parallelism: int | None
    uid: str | None


def checked_options(options: OperatorOptions, operator: str) -> OperatorOptions:
    """The options as they are. Raises PipelineError, with the user's line, for one that there is not."""
    known = OperatorOptions.__annotations__
    for name in options:
        if name not in known:
            origin = Origin.of_caller()
            near = difflib.get_close_matches(name, known, 1)
            raise PipelineError(
                f"{operator} has no option {name!r} ({origin})",
                cause=f"there are {', '.join(known)}",
                hint=f"did you mean {near[0]!r}?" if near else "",
                details={"operator": operator, "file": origin.file, "line": origin.line},
            )
    return options
