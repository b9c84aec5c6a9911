"""Keeps streams of one group together in event time (Flink FLIP-182, between the subtasks of one process)."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

__all__ = ["AlignmentGroup", "group_of_job"]


class AlignmentGroup:
    """How far each member has come. Usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watermarks: dict[object, int] = {}

    def report(self, member: object, watermark: int) -> None:
        """A member has come to `watermark`."""
        with self._lock:
            self._watermarks[member] = watermark

    def leave(self, member: object) -> None:
        """The member is idle, or has ended: nobody waits for it."""
        with self._lock:
            self._watermarks.pop(member, None)

    def ahead(self, member: object) -> int:
        """By how much the member is ahead of the slowest one (ms)."""
        with self._lock:
            own = self._watermarks.get(member)
            return 0 if own is None else own - min(self._watermarks.values())


_groups: WeakValueDictionary[tuple[str, str], AlignmentGroup] = WeakValueDictionary()
_lock = threading.Lock()


def group_of_job(job_id: str, name: str) -> AlignmentGroup:
    """The group of that name in the job; it goes when its last member does."""
    with _lock:
        group = _groups.get((job_id, name))
        if group is None:
            group = _groups[job_id, name] = AlignmentGroup()
        return group
