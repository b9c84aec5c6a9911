"""What a restore has read and nobody has asked for yet.

Blocks stay bytes until the state of their name is declared: a state that the new program does not declare is carried
through its snapshots unread, so that a later program can have it again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from sage.common.errors import StateError
from sage.core.state.serialization import dump_many, load_many

__all__ = ["RestoredBlocks", "dump_block", "load_block"]


def dump_block(keys: Sequence[Any], namespaces: Sequence[Hashable], values: Sequence[Any]) -> bytes:
    """Entries of one table and group as bytes."""
    spaces = b"" if not any(space is not None for space in namespaces) else dump_many(namespaces)
    return msgspec.msgpack.encode([len(keys), dump_many(keys), spaces, dump_many(values)])


def load_block(name: str, block: bytes) -> tuple[list[Any], list[Any], list[Any]]:
    """Keys, namespaces and values of a block. Raises StateError, with the state's name."""
    try:
        count, keys, spaces, values = msgspec.msgpack.decode(block)
        namespaces = load_many(spaces) if spaces else [None] * count
        return load_many(keys), namespaces, load_many(values)
    except (StateError, msgspec.DecodeError, ValueError) as error:
        cause = error.cause if isinstance(error, StateError) else str(error)
        hint = error.hint if isinstance(error, StateError) else ""
        raise StateError(f"State {name!r} cannot be restored", cause=cause, hint=hint) from error


class RestoredBlocks:
    """Blocks by name, and the fingerprints of all states: of the snapshot, and of what was declared since."""

    def __init__(self) -> None:
        self.schema: dict[str, str] = {}
        self._blocks: dict[str, list[tuple[int, bytes]]] = {}

    def expect(self, schema: dict[str, str]) -> None:
        """Fingerprints of a snapshot that is being restored. Raises StateError when two snapshots disagree."""
        for name, fingerprint in schema.items():
            self.check(name, fingerprint)

    def check(self, name: str, fingerprint: str) -> None:
        """Raises StateError when the state of that name has another fingerprint."""
        known = self.schema.setdefault(name, fingerprint)
        if known != fingerprint:
            raise StateError(
                f"State {name!r} is not what it was",
                cause=f"the snapshot, or an earlier declaration, has {known}; declared now: {fingerprint}",
                hint="give the changed state a new name, or start without the old checkpoint",
            )

    def add(self, name: str, group: int, block: bytes) -> None:
        """A block that was read."""
        self._blocks.setdefault(name, []).append((group, block))

    def take(self, name: str) -> list[tuple[int, bytes]]:
        """The blocks of a table, which is declared now."""
        return self._blocks.pop(f"table:{name}", [])

    def take_raw(self, name: str) -> list[tuple[int, bytes]]:
        """The blocks of a raw state, which is declared now."""
        return self._blocks.pop(f"raw:{name}", [])

    def unclaimed(self) -> list[tuple[str, int, bytes]]:
        """(name in files, group, block) of what nobody has declared."""
        return [(name, group, block) for name, blocks in self._blocks.items() for group, block in blocks]
