"""The options that every operator takes."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["OperatorOptions"]


class OperatorOptions(TypedDict, total=False):
    """`name` shows in messages, metrics and `explain()` (default: what the operator is called). `parallelism` is the
    number of parallel subtasks (default: the environment's). `uid` makes checkpoints find the operator's state though
    the program around it has changed (default: derived from the operator and what stands upstream)."""

    name: str | None
    parallelism: int | None
    uid: str | None
