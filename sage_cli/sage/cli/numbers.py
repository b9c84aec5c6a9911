"""Numbers on the command line."""

from __future__ import annotations

import math

from typer import BadParameter

LONGEST_INTERVAL_SECONDS = 3600.0


def real(value: float | None) -> float | None:
    """An option's value, for its callback. Raises BadParameter for nan, which no range refuses."""
    if value is not None and math.isnan(value):
        raise BadParameter("nan is no number to work with")
    return value
