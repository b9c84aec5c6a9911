"""Values and keys as bytes: msgpack for plain data, pickle for the rest, told apart by the first byte.

Plain data is None, bool, int (64 bits), float, str, bytes, and lists, tuples and dicts of these. A value comes back
with the types it had: a tuple stays a tuple, True stays True. Everything else is a pickle. Pickles are read from the
job's own checkpoints and state folders only; whoever can write there can run code in the job, and data from outside
never comes this way.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import msgspec

from sage.common.errors import StateError

__all__ = ["dump", "dump_many", "load", "load_many"]

_PLAIN, _TUPLE, _NESTED, _PICKLE = b"\x00", b"\x01", b"\x02", b"\x03"
_ALL_SCALARS, _EACH = b"\x00", b"\x01"
_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})
_CONTAINERS = frozenset({list, tuple, dict})
_TUPLE_EXT, _MAP_EXT = 1, 2
_DEEPEST = 32
_SHORT = 512  # bytes: copied sooner than looked at through a memoryview

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_encode, _decode = _encoder.encode, _decoder.decode


class _NotPlain(Exception):  # noqa: N818 - a way out of the recursion, not a failure
    """The value has parts that msgpack would change."""


def dump(value: Any) -> bytes:
    """A value as bytes. Raises StateError for one that cannot be pickled."""
    kind = type(value)
    try:
        if kind in _SCALARS:
            return _PLAIN + _encode(value)
        if kind in _CONTAINERS:
            return _dump_container(kind, value)
    except (_NotPlain, OverflowError, ValueError, RecursionError):
        pass  # a longer integer, a lone surrogate, an object of the user's inside
    return _dump_pickle(value)


def load(data: bytes) -> Any:
    """The value of bytes from `dump`. Raises StateError when they are damaged, or a class is gone."""
    tag = data[:1]
    try:
        if tag == _PLAIN:
            return _decode(data[1:] if len(data) < _SHORT else memoryview(data)[1:])
        if tag == _TUPLE:
            return tuple(_decode(memoryview(data)[1:]))
        if tag == _NESTED:
            return _revived(_decode(memoryview(data)[1:]))
        if tag == _PICKLE:
            return pickle.loads(memoryview(data)[1:])  # noqa: S301 - the job's own values, see above
    except Exception as error:  # unpickling runs code of the user's classes: anything can come
        raise StateError(
            "A value in the state cannot be read back",
            cause=f"{type(error).__name__}: {error}",
            hint="keep classes whose objects are in state importable under the name they had",
        ) from error
    raise StateError("A value in the state cannot be read back", cause=f"unknown encoding {tag!r}")


def dump_many(values: Sequence[Any]) -> bytes:
    """Many values at once; scalars in one call of the encoder."""
    if _SCALARS.issuperset(set(map(type, values))):
        try:
            return _ALL_SCALARS + _encode(values)
        except (OverflowError, ValueError):
            pass
    return _EACH + _encode([dump(value) for value in values])


def load_many(data: bytes) -> list[Any]:
    """The values of bytes from `dump_many`. Raises StateError."""
    try:
        values: list[Any] = _decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise StateError("State cannot be read back", cause=str(error)) from error
    if data[:1] == _ALL_SCALARS:
        return values
    return [load(value) for value in values]


def _dump_container(kind: type, value: Any) -> bytes:
    if kind is dict:
        if _SCALARS.issuperset(set(map(type, value))) and _SCALARS.issuperset(set(map(type, value.values()))):
            return _PLAIN + _encode(value)
    elif _SCALARS.issuperset(set(map(type, value))):
        return (_TUPLE if kind is tuple else _PLAIN) + _encode(value)
    return _NESTED + _encode(_flattened(value, 0))


def _dump_pickle(value: Any) -> bytes:
    try:
        return _PICKLE + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # __reduce__ of the user's classes: anything can come
        raise StateError(
            f"A {type(value).__name__} cannot be kept in state",
            cause=f"{type(error).__name__}: {error}",
            hint="keep plain data, or objects that pickle can write: no locks, open files, lambdas or local classes",
        ) from error


def _flattened(value: Any, depth: int) -> Any:
    """The value with msgpack's own types only: tuples, and dicts with odd keys, as extensions."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth > _DEEPEST:
        raise _NotPlain
    if kind is list:
        return [_flattened(item, depth + 1) for item in value]
    if kind is tuple:
        return msgspec.msgpack.Ext(_TUPLE_EXT, _encode([_flattened(item, depth + 1) for item in value]))
    if kind is dict:
        if _SCALARS.issuperset(set(map(type, value))):
            return {key: _flattened(item, depth + 1) for key, item in value.items()}
        pairs = [(_flattened(key, depth + 1), _flattened(item, depth + 1)) for key, item in value.items()]
        return msgspec.msgpack.Ext(_MAP_EXT, _encode(pairs))
    raise _NotPlain


def _revived(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_revived(item) for item in value]
    if kind is dict:
        return {key: _revived(item) for key, item in value.items()}
    if kind is msgspec.msgpack.Ext:
        items = _decode(value.data)
        if value.code == _TUPLE_EXT:
            return tuple(_revived(item) for item in items)
        return {_revived(key): _revived(item) for key, item in items}
    return value
