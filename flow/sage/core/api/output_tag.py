"""Names of side outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sage.common.errors import PipelineError

__all__ = ["OutputTag", "tag_name"]

T = TypeVar("T")


@dataclass(frozen=True)  # slots would make OutputTag[int]("late") fail: Python cannot note the type
class OutputTag(Generic[T]):
    """Names a side output (PyFlink's OutputTag): two tags of one name are the same. `OutputTag[int]("late")` tells
    mypy what the records are."""

    name: str

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not name:
            raise PipelineError("An OutputTag needs a name", cause=f"got {self.name!r:.80}")


def tag_name(tag: OutputTag[T], where: object = None) -> str:
    """The name. Raises PipelineError, with the place `where`, for what is no OutputTag."""
    given: object = tag
    if not isinstance(given, OutputTag):
        place = "" if where is None else f" ({where})"
        raise PipelineError(
            f"A side output is named by an OutputTag, got {given!r:.80}{place}", hint='OutputTag("late")'
        )
    return tag.name
