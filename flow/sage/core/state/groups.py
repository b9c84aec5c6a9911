"""Key groups from the side of the state: which of them a subtask owns, and the group of a key, quickly."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from sage.core.runtime.partition import KEY_GROUPS, key_group

__all__ = ["KEY_GROUPS", "group_of", "group_range"]


def group_range(subtask: int, parallelism: int) -> tuple[int, int]:
    """First and last group (both included) of a subtask; the last is smaller than the first when it owns none.

    The inverse of the partitioner's `group * parallelism // KEY_GROUPS`.
    """
    first = -(-subtask * KEY_GROUPS // parallelism)
    return first, -(-(subtask + 1) * KEY_GROUPS // parallelism) - 1


def group_of(key: Any) -> int:
    """The same as `key_group`, without its search through types for the usual keys."""
    kind = type(key)
    if kind is str and key.isascii():
        return crc32(b"s:" + key.encode()) % KEY_GROUPS
    if kind is int:
        return crc32(b"n:%d" % hash(key)) % KEY_GROUPS
    return key_group(key)
