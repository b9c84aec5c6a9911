"""Rows of the database: a group, a table, a key (and namespace, and map entry) as bytes, and back.

    group (1 byte) · table * 4 + kind (2 bytes) · key                                         kind 0: a value
                                                · length (4) · key · namespace                kind 1: with a namespace
                                                · length (4) · key · length (4) · namespace · entry    kind 2: of a map

so that rows of a group, of a table in it, and of a map are neighbours. Keys that are equal have equal bytes (1, 1.0,
True); ints and strings can be read back from theirs, and for everything else the value carries the key along.
"""

from __future__ import annotations

import dataclasses
import numbers
import struct
from collections.abc import Hashable
from typing import Any
from zlib import crc32

from sage.core.runtime.partition import KEY_GROUPS, stable_bytes
from sage.core.state.groups import group_of
from sage.core.state.serialization import dump, load

__all__ = ["ENTRY", "PLAIN", "SPACED", "RowCodec", "decode", "key_bytes", "table_of", "value_of"]

PLAIN, SPACED, ENTRY = 0, 1, 2
_TELLING = (b"n:", b"s:")  # rows from which the key can be read back
_HASHES_TO_ITSELF = 2**61 - 1
_LENGTH = struct.Struct(">I")
_DOUBLE = struct.Struct(">d")


def key_bytes(key: Any) -> bytes:
    """Bytes that are equal exactly for equal keys."""
    kind = type(key)
    if kind is int:
        return b"n:%d" % key
    if isinstance(key, str):
        return b"s:" + str.__str__(key).encode("utf-8", "surrogatepass")
    if isinstance(key, numbers.Number):
        return _number(key)
    if isinstance(key, tuple):
        return b"t:" + _parts([key_bytes(part) for part in key])
    if isinstance(key, frozenset):
        return b"f:" + _parts(sorted(key_bytes(part) for part in key))
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        values = [key_bytes(getattr(key, field.name)) for field in dataclasses.fields(key) if field.compare]
        return b"d:" + _parts([kind.__module__.encode(), kind.__qualname__.encode(), *values])
    return stable_bytes(key)


def _number(key: Any) -> bytes:
    try:
        whole = int(key)
    except (OverflowError, ValueError, TypeError):  # infinity, not a number, complex
        whole = None
    if whole is not None and whole == key:
        return b"n:%d" % whole
    if isinstance(key, float) or _equals_float(key):
        return b"r:" + _DOUBLE.pack(float(key))
    return b"q:" + repr(key).encode()


def _equals_float(key: Any) -> bool:
    try:
        return bool(float(key) == key)
    except (OverflowError, ValueError, TypeError):
        return False


def _parts(parts: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def table_of(row: bytes) -> tuple[int, int]:
    """Table number and kind of a row."""
    return divmod(row[1] << 8 | row[2], 4)


class RowCodec:
    """Rows of one table and kind."""

    __slots__ = ("_known_spaces", "_prefixes", "kind")

    def __init__(self, table: int, kind: int) -> None:
        self.kind = kind
        number = (table * 4 + kind).to_bytes(2, "big")
        self._prefixes = [bytes([group]) + number for group in range(KEY_GROUPS)]
        self._known_spaces: dict[Hashable, bytes] = {}

    def prefix(self, group: int) -> bytes:
        """What all rows of the group begin with."""
        return self._prefixes[group]

    def plain(self, key: Any) -> bytes:
        """The row of a key."""
        kind = type(key)
        if kind is int and -1 < key < _HASHES_TO_ITSELF:
            text = b"n:%d" % key
            return self._prefixes[crc32(text) % KEY_GROUPS] + text
        if kind is str and key.isascii():
            text = b"s:" + bytes(key, "ascii")
            return self._prefixes[crc32(text) % KEY_GROUPS] + text
        return self._prefixes[group_of(key)] + key_bytes(key)

    def of_key(self, key: Any) -> bytes:
        """What the rows of a key with namespaces or entries begin with."""
        text = key_bytes(key)
        return self._prefixes[group_of(key)] + _LENGTH.pack(len(text)) + text

    def spaced(self, slot: tuple[Any, Hashable]) -> bytes:
        """The row of (key, namespace)."""
        return self.of_key(slot[0]) + self._space(slot[1])

    def of_map(self, slot: tuple[Any, Hashable]) -> bytes:
        """What the entries of the map of (key, namespace) begin with."""
        space = self._space(slot[1])
        return self.of_key(slot[0]) + _LENGTH.pack(len(space)) + space

    def _space(self, namespace: Hashable) -> bytes:
        """Windows are few, and each is used by many keys."""
        known = self._known_spaces.get(namespace)
        if known is None:
            if len(self._known_spaces) > 1024:
                self._known_spaces.clear()
            known = self._known_spaces[namespace] = key_bytes(namespace)
        return known

    def pack(self, row: bytes, slot: Any, value: Any) -> bytes:
        """The value of a row; with the slot in front, where the row does not tell it."""
        kind = type(slot)
        if self.kind == PLAIN and (kind is int or kind is str or row[3:5] in _TELLING):
            return dump(value)
        label = dump(slot)
        return _LENGTH.pack(len(label)) + label + dump(value)


def decode(row: bytes, packed: bytes) -> tuple[Any, Any]:
    """(slot, value) of a row: the slot is a key, (key, namespace) or (key, namespace, entry). Raises StateError."""
    if table_of(row)[1] == PLAIN:
        tag = row[3:5]
        if tag == b"n:":
            return int(row[5:]), load(packed)
        if tag == b"s:":
            return row[5:].decode("utf-8", "surrogatepass"), load(packed)
    end = _LENGTH.size + _LENGTH.unpack_from(packed)[0]
    return load(packed[_LENGTH.size : end]), load(packed[end:])


def value_of(row: bytes, packed: bytes) -> Any:
    """The value of a row whose slot is known. Raises StateError."""
    if row[3:5] in _TELLING and row[2] & 3 == PLAIN:
        return load(packed)
    return load(packed[_LENGTH.size + _LENGTH.unpack_from(packed)[0] :])
