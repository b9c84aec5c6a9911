"""Records that a barrier overtook, as a file, and whose they are after a restore."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from sage.common.errors import StateError
from sage.core.runtime.events import Batch
from sage.core.state.serialization import dump_many, load_many

__all__ = ["IN_FLIGHT", "InFlight", "deal", "read_in_flight", "write_in_flight"]

IN_FLIGHT = "in-flight.records"

InFlight: TypeAlias = list[tuple[int, Batch]]  # (port, records), in the order in which they wait


def write_in_flight(path: Path, waiting: InFlight) -> None:
    """Write them, with a checksum in front. Raises StateError for records that cannot be pickled."""
    data = dump_many([(port, batch.records, batch.timestamps) for port, batch in waiting])
    path.write_bytes(zlib.crc32(data).to_bytes(4, "big") + data)


def read_in_flight(path: Path) -> InFlight:
    """What `write_in_flight` wrote. Raises StateError for a file that is missing or torn."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be read", cause=error.strerror or str(error)) from error
    data = content[4:]
    if zlib.crc32(data) != int.from_bytes(content[:4], "big") or len(content) < 4:
        raise StateError(f"{path} is damaged", cause="its checksum is not that of its content")
    return [(port, Batch(records, timestamps)) for port, records, timestamps in load_many(data)]


def deal(
    parts: Sequence[InFlight], subtask: int, parallelism: int, split: Callable[[int, Batch], Batch | None]
) -> InFlight:
    """What subtask gets of what was on its way to all of them. `split(port, batch)`: its share of a batch by key, or
    None where the port has no key: then whole subtasks are dealt out."""
    if len(parts) == parallelism:
        return list(parts[subtask])
    found: InFlight = []
    for number, part in enumerate(parts):
        for port, batch in part:
            share = split(port, batch)
            if share is None and number % parallelism == subtask:
                share = batch
            if share is not None and share.records:
                found.append((port, share))
    return found
