"""One line of a report: a measured ratio and the bound that it has to keep.

Modules of `engine` and `flow` beside their tables have `measure() -> list[Finding]`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was measured, in words `measured` (both sides, with units), as a `ratio` with its `bound`.

    `at_least`: the ratio has to be at least the bound; otherwise at most.
    """

    what: str
    measured: str
    ratio: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def row(self) -> str:
        """One line of the report's table."""
        sign = "≥" if self.at_least else "≤"
        return f"| {self.what} | {self.measured} | {self.ratio:.3g} | {sign} {self.bound:g} | {_verdict(self.met)} |"


def _verdict(met: bool) -> str:
    return "yes" if met else "**no**"
