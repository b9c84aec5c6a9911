"""The configuration of an environment: dotted or nested keys, checked at once.

An unknown key is an error that names the nearest known one. Keys of features that this version does not have are
checked too, and a warning says that they have no effect yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sage.common.errors import ConfigError
from sage.core.api.units import parse_duration, parse_size
from sage.core.graph.origin import Origin
from sage.core.runtime import session
from sage.core.runtime.settings import RuntimeSettings

__all__ = ["parse_config"]


@dataclass(slots=True, frozen=True)
class _Key:
    parse: Callable[[object], Any]
    setting: str | None  # the field of RuntimeSettings; None: no effect yet


def _count(value: object) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{value!r} is no whole number of at least 1")
    return number


def _attempts(value: object) -> int:
    return 0 if value in (0, "0") and not isinstance(value, bool) else _count(value)


def _flag(value: object) -> bool:
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in known:
        raise ValueError(f"{value!r} is neither true nor false")
    return known[str(value).lower()]


def _cores(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not number > 0 or isinstance(value, bool):
        raise ValueError(f"{value!r} is no number of cores")
    return number


def _one_of(*names: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is none of {', '.join(names)}")
        return str(value)

    return parse


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


_KEYS: dict[str, _Key] = {
    "parallelism": _Key(_count, "parallelism"),
    "buffer.timeout": _Key(parse_duration, "buffer_timeout"),
    "buffer.size": _Key(_count, "buffer_size"),
    "channel.capacity": _Key(_count, "channel_capacity"),
    "chaining": _Key(_flag, "chaining"),
    "object.reuse": _Key(_flag, None),
    "state.backend": _Key(_one_of("memory", "rocksdb"), None),
    "state.checkpoint.interval": _Key(parse_duration, None),
    "state.incremental": _Key(_flag, None),
    "state.dir": _Key(_text, None),
    "resources.taskmanager.memory.process.size": _Key(parse_size, None),
    "resources.taskmanager.cpu.cores": _Key(_cores, None),
    "restart.strategy": _Key(_one_of("none", "fixed-delay", "exponential-delay", "failure-rate"), None),
    "restart.attempts": _Key(_attempts, None),
    "restart.delay": _Key(parse_duration, None),
    "restart.max_delay": _Key(parse_duration, None),
    "checkpointing": _Key(_one_of("exactly_once", "at_least_once", "none"), None),
    "checkpoint.interval": _Key(parse_duration, None),
    "checkpoint.timeout": _Key(parse_duration, None),
}
# The block in which a key may also stand.
_KEYS |= {
    f"execution.{name}": _KEYS[name]
    for name in ("parallelism", "buffer.timeout", "buffer.size", "object.reuse", "chaining")
}


def parse_config(config: Mapping[str, Any] | None, origin: Origin) -> RuntimeSettings:
    """The runtime's settings. Raises ConfigError for an unknown key or a value that does not fit."""
    values: dict[str, Any] = {}
    idle: list[str] = []
    for name, value in _flat(config or {}, origin):
        key = _KEYS.get(name)
        if key is None:
            raise _unknown(name, origin)
        try:
            parsed = key.parse(value)
        except ValueError as error:
            raise ConfigError(f"Configuration key {name!r} has a wrong value ({origin})", cause=str(error)) from error
        if key.setting is None:
            idle.append(name)
        else:
            values[key.setting] = parsed
    if idle:
        noun = "keys" if len(idle) > 1 else "key"
        session.warn(f"configuration {noun} without effect yet in this version: {', '.join(idle)} ({origin})")
    return RuntimeSettings(**values)


def _flat(config: Mapping[str, Any], origin: Origin, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and their values, of nested blocks too."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"The configuration is no mapping ({origin})", cause=f"got {config!r:.80}")
    for name, value in config.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, origin, f"{full}.")
        else:
            yield full, value


def _unknown(name: str, origin: Origin) -> ConfigError:
    near = difflib.get_close_matches(name, _KEYS, 1, cutoff=0.4)
    return ConfigError(
        f"Unknown configuration key {name!r} ({origin})",
        cause="a misspelt key would silently do nothing",
        hint=f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(_KEYS))}",
    )
