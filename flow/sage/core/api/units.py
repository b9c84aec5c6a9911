"""Durations and sizes as people write them."""

from __future__ import annotations

import re

__all__ = ["parse_duration", "parse_size"]

_UNITS = {  # with Flink's names
    0.001: ("ms", "milli", "millis", "millisecond", "milliseconds"),
    1.0: ("s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "minute", "minutes"),
    3600.0: ("h", "hour", "hours"),
    86400.0: ("d", "day", "days"),
}
_SECONDS = {unit: seconds for seconds, units in _UNITS.items() for unit in units}
_BYTES = {
    "": 1,
    "b": 1,
    "k": 2**10,
    "kb": 2**10,
    "m": 2**20,
    "mb": 2**20,
    "g": 2**30,
    "gb": 2**30,
    "t": 2**40,
    "tb": 2**40,
}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_duration(value: object) -> float:
    """Seconds. A number counts milliseconds (as in Flink); text has a unit: "100ms", "30s", "5m", "2h", "1d".

    Raises ValueError.

    >>> parse_duration(100), parse_duration("30s"), parse_duration("5m")
    (0.1, 30.0, 300.0)
    """
    number, unit = _split(value)
    if isinstance(value, (int, float)) or unit == "":
        return number / 1000.0
    if unit not in _SECONDS:
        raise ValueError(f"{value!r} is no duration: write for example 100ms, 30s, 5m or 2h")
    return number * _SECONDS[unit]


def parse_size(value: object) -> int:
    """Bytes, in powers of 1024: "4gb", "512m", 1048576. Raises ValueError.

    >>> parse_size("4gb"), parse_size("512 MB")
    (4294967296, 536870912)
    """
    number, unit = _split(value)
    unit = unit.replace("ib", "b")
    if unit not in _BYTES:
        raise ValueError(f"{value!r} is no size: write for example 512mb or 4gb")
    return int(number * _BYTES[unit])


def _split(value: object) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is neither a number nor text with a unit")
    match = _NUMBER.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is neither a number nor text with a unit")
    return float(match[1]), match[2].lower()
