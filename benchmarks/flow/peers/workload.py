"""The data of rows a, b and c: the same for everybody, from a seed. Standard library alone.

a: map → filter → map over ints. b: count by key, 10,000 keys by Zipf's law, every update put out. c: count by key in
tumbling windows of 10 s of event time; 1,000 keys by Zipf's law, one event a millisecond, up to 2 s out of order.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

WINDOW = 10_000  # ms
LATE = 2_000  # ms
KEYS = 10_000
WINDOW_KEYS = 1_000
_SEED = 20_24


def zipf(count: int, distinct: int) -> list[str]:
    """Keys "0" to "distinct-1", key k with a weight of 1 / (k + 1)."""
    weights = list(itertools.accumulate(1 / (k + 1) for k in range(distinct)))
    return random.Random(_SEED).choices([str(k) for k in range(distinct)], cum_weights=weights, k=count)


def events(count: int) -> list[tuple[str, int]]:
    """(key, time in ms), out of order by up to LATE."""
    jitter = random.Random(_SEED + 1).random
    return [(key, LATE + n - int(jitter() * LATE)) for n, key in enumerate(zipf(count, WINDOW_KEYS))]


def data_of(row: str, count: int) -> Any:
    """The input of a row."""
    if row == "a":
        return list(range(count))
    return zipf(count, KEYS) if row == "b" else events(count)


def check_a(count: int, out: list[int]) -> None:
    """Raises AssertionError where the result is wrong."""
    expected = [y + 1 for y in range(0, 2 * count, 2) if y % 3]
    assert out == expected, f"a gave {len(out)} records"


def check_b(keys: list[str], out: list[Any], *, every: bool = True) -> None:
    """`out`: (key, count) for every update; or, not `every`, at least the last of each key."""
    assert not every or len(out) == len(keys), f"b gave {len(out)} updates for {len(keys)} records"
    last = dict(out)
    assert last == Counter(keys), "b counted wrongly"


def lost(data: list[tuple[str, int]], out: list[tuple[str, int, int]]) -> int:
    """How many events no window counted; `out`: (key, start of the window in ms, count)."""
    expected = Counter((key, time - time % WINDOW) for key, time in data)
    found: Counter[tuple[str, int]] = Counter()
    for key, start, number in out:
        found[key, start] += number
    surplus = sum((found - expected).values())
    assert not surplus, f"c counted {surplus} events that there are not"
    return sum((expected - found).values())


def quantiles(nanoseconds: list[int], records: int) -> dict[str, float]:
    """Median and 99th percentile in milliseconds; the first tenth, in which everything is warmed up, is left out."""
    assert len(nanoseconds) == records, f"{len(nanoseconds)} of {records} records came"
    steady = sorted(nanoseconds[records // 10 :])
    return {"p50": steady[len(steady) // 2] / 1e6, "p99": steady[int(len(steady) * 0.99)] / 1e6}
