"""Runs a pipeline and compares what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sage.core.api.datastream import DataStream

__all__ = ["assert_stream", "collect_stream"]

T = TypeVar("T")
_SHOWN = 5


def collect_stream(stream: DataStream[T], *, timeout: float = 60.0) -> list[T]:
    """Run the pipeline that ends in `stream`; its records, in the order in which they came out.

    Raises PipelineError when it fails, and TimeoutError (it is aborted then) when it has not ended after `timeout`
    seconds.

    >>> from sage.core.api import LocalEnvironment
    >>> collect_stream(LocalEnvironment("test").from_collection([1, 2, 3]).map(lambda n: n * n))
    [1, 4, 9]
    """
    records: list[T] = []
    handle = stream.env.submit(stream.sink(records.append, name="collected"), block=False)
    try:
        handle.wait(timeout)
    except TimeoutError:
        handle.abort()
        raise
    return records


def assert_stream(stream: DataStream[T], expected: Iterable[T], *, ordered: bool = True, timeout: float = 60.0) -> None:
    """Run the pipeline that ends in `stream`, and raise AssertionError unless just `expected` comes out.

    `ordered=False` where several subtasks put their records out in any order. Raises as `collect_stream`.

    >>> from sage.core.api import LocalEnvironment
    >>> words = LocalEnvironment("test").from_collection(["b a", "c"]).flat_map(str.split)
    >>> assert_stream(words, ["a", "b", "c"], ordered=False)
    >>> assert_stream(LocalEnvironment("test").from_collection([1, 2]), [1, 3])
    Traceback (most recent call last):
        ...
    AssertionError: 2 records came out, 2 were expected
      missing: 3
      not expected: 2
      first difference at 1: got 2, expected 3
    """
    got, wanted = collect_stream(stream, timeout=timeout), list(expected)
    missing, added = _without(wanted, got), _without(got, wanted)
    if (got == wanted) if ordered else not (missing or added):
        return
    lines = [f"{len(got)} records came out, {len(wanted)} were expected"]
    if missing:
        lines.append(f"  missing: {_shown(missing)}")
    if added:
        lines.append(f"  not expected: {_shown(added)}")
    if ordered:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
        pair = [repr(records[at]) if at < len(records) else "the end" for records in (got, wanted)]
        lines.append(f"  first difference at {at}: got {pair[0]}, expected {pair[1]}")
    raise AssertionError("\n".join(lines))


def _without(records: list[Any], others: list[Any]) -> list[Any]:
    """The records that are left when each of the others takes its equal away."""
    try:
        counts: dict[Any, int] = {}
        for other in others:
            counts[other] = counts.get(other, 0) + 1
    except TypeError:  # records that cannot be hashed
        left = list(others)
        return [record for record in records if not _taken(record, left)]
    rest = []
    for record in records:
        if counts.get(record, 0):
            counts[record] -= 1
        else:
            rest.append(record)
    return rest


def _taken(record: Any, left: list[Any]) -> bool:
    if record in left:
        left.remove(record)
        return True
    return False


def _shown(records: list[Any]) -> str:
    more = f", … ({len(records)} in all)" if len(records) > _SHOWN else ""
    return ", ".join(repr(record) for record in records[:_SHOWN]) + more
