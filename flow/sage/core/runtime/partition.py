"""Which subtask a record goes to.

A key belongs to one of `KEY_GROUPS` groups, and a subtask owns a range of groups (Flink's key groups), so that state
can later be moved when the parallelism changes. The group is the same in every process and on every machine: it never
uses `hash()` of strings, which Python changes with each start. Keys that are equal have the same group (1, 1.0, True).
"""

from __future__ import annotations

import dataclasses
import enum
import numbers
import uuid
import zlib
from collections.abc import Callable, Hashable
from datetime import date, datetime, time, timedelta
from pathlib import PurePath
from typing import Any

from sage.common.errors import PipelineError
from sage.core.runtime.events import Batch

__all__ = ["KEY_GROUPS", "KeyPartitioner", "key_group", "stable_bytes"]

KEY_GROUPS = 128
_CACHED_KEYS = 65_536


def key_group(key: Hashable) -> int:
    """The group (0 to 127) of a key. Raises PipelineError for a key whose identity would not survive the process."""
    return zlib.crc32(stable_bytes(key)) % KEY_GROUPS


def stable_bytes(key: Any) -> bytes:
    """Bytes that are equal for equal keys, in every process."""
    if isinstance(key, enum.Enum) and not isinstance(key, (str, numbers.Number)):
        return f"e:{type(key).__qualname__}.{key.name}".encode()
    for kind, encode in _ENCODERS:
        if isinstance(key, kind):
            return encode(key)
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        values = tuple(getattr(key, field.name) for field in dataclasses.fields(key) if field.compare)
        return b"d:" + type(key).__qualname__.encode() + _many(values)
    raise PipelineError(
        f"{type(key).__name__} cannot be a key",
        cause="records are partitioned by the key's value, and this type has none that is the same in every process",
        hint="return a str, a number, a date, an enum, a frozen dataclass or a tuple of these from the key function",
    )


def _many(values: Any) -> bytes:
    parts = [stable_bytes(value) for value in values]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _moment(value: datetime) -> bytes:
    """Aware times are equal when they are the same instant."""
    offset = value.utcoffset()
    if offset is None:
        return b"m:" + value.isoformat().encode()
    return b"u:" + (value.replace(tzinfo=None) - offset).isoformat().encode()


# Python gives equal numbers of all types the same hash, and does not randomise it.
_ENCODERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], bytes]], ...] = (
    (str, lambda key: b"s:" + key.encode("utf-8", "surrogatepass")),
    (numbers.Number, lambda key: b"n:%d" % hash(key)),
    (type(None), lambda key: b"0:"),
    (bytes, lambda key: b"b:" + key),
    (tuple, lambda key: b"t:" + _many(key)),
    (frozenset, lambda key: b"f:" + b"".join(sorted(_many((item,)) for item in key))),
    (datetime, _moment),
    ((date, time, timedelta, uuid.UUID, PurePath), lambda key: b"r:" + repr(key).encode()),
)


class KeyPartitioner:
    """Splits batches by key over `targets` subtasks."""

    def __init__(self, key: Callable[[Any], Any], targets: int) -> None:
        self._key = key
        self._targets = targets
        self._known: dict[Any, int] = {}
        self.failed_at: Any = None  # the record whose key could not be had
        self.failed_index = 0  # where it stands in its batch

    def split(self, batch: Batch) -> list[Batch]:
        """One batch for each target; records of a target stay in order."""
        parts: list[list[Any]] = [[] for _ in range(self._targets)]
        key, known = self._key, self._known
        chosen: list[int] | None = None if batch.timestamps is None else []
        record = None
        try:
            for record in batch.records:
                value = key(record)
                target = known.get(value)
                if target is None:
                    target = self._learn(value)
                parts[target].append(record)
                if chosen is not None:
                    chosen.append(target)
        except BaseException:
            self.failed_at, self.failed_index = record, sum(map(len, parts))
            raise
        if chosen is None or batch.timestamps is None:
            return [Batch(part) for part in parts]
        times: list[list[int]] = [[] for _ in parts]
        for target, timestamp in zip(chosen, batch.timestamps, strict=True):
            times[target].append(timestamp)
        return [Batch(part, stamps) for part, stamps in zip(parts, times, strict=True)]

    def _learn(self, value: Any) -> int:
        if len(self._known) >= _CACHED_KEYS:
            self._known.clear()
        target = key_group(value) * self._targets // KEY_GROUPS
        self._known[value] = target
        return target
