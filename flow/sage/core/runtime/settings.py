"""The settings that the runtime reads, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RuntimeSettings"]


@dataclass(slots=True, frozen=True)
class RuntimeSettings:
    """`buffer_timeout` in seconds; `buffer_size` in records; `channel_capacity` in batches."""

    parallelism: int = 1
    buffer_timeout: float = 0.01
    buffer_size: int = 1024
    channel_capacity: int = 4
    chaining: bool = True
