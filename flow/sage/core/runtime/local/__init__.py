"""Tasks on threads of this process."""

from sage.core.runtime.local.job import JobState, LocalJob

__all__ = ["JobState", "LocalJob"]
