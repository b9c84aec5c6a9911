"""One row of the check."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """``fail`` means that something required is broken; ``next`` is the next command to type ("" where none is)."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    next: str = ""


def nearest_existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that can be seen: where it would be made."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110 - never raises
