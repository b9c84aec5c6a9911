"""The configuration of an environment: dotted or nested keys, checked at once.

An unknown key is an error that names the nearest known one. Many keys are known under Flink's names too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError
from sage.core.graph.origin import Origin
from sage.core.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["parse_config"]

# Other names of keys: the blocks of the documents, and Flink's (https://nightlies.apache.org/flink, "Configuration").
_ALIASES = {
    "execution.parallelism": "parallelism",
    "execution.buffer.timeout": "buffer.timeout",
    "execution.buffer.size": "buffer.size",
    "execution.object.reuse": "object.reuse",
    "execution.chaining": "chaining",
    "execution.runtime": "runtime",
    "execution.processes": "processes",
    "execution.hang.timeout": "hang.timeout",
    "state.checkpoint.interval": "checkpoint.interval",
    "state.checkpoint.timeout": "checkpoint.timeout",
    "state.checkpoint.dir": "checkpoint.dir",
    "checkpoint.mode": "checkpointing",
    "restart.failure_rate.failures_per_interval": "restart.failures_per_interval",
    "dead_letter": "dead_letter.path",
    "errors.policy": "on_error",
    "parallelism.default": "parallelism",
    "pipeline.object-reuse": "object.reuse",
    "pipeline.operator-chaining": "chaining",
    "execution.buffer-timeout": "buffer.timeout",
    "execution.checkpointing.mode": "checkpointing",
    "execution.checkpointing.interval": "checkpoint.interval",
    "execution.checkpointing.timeout": "checkpoint.timeout",
    "execution.checkpointing.min-pause": "checkpoint.min_pause",
    "execution.checkpointing.tolerable-failed-checkpoints": "checkpoint.tolerable_failures",
    "execution.checkpointing.num-retained": "checkpoint.retained",
    "execution.checkpointing.dir": "checkpoint.dir",
    "execution.checkpointing.incremental": "state.incremental",
    "execution.checkpointing.unaligned": "checkpoint.unaligned",
    "execution.checkpointing.unaligned.enabled": "checkpoint.unaligned",
    "execution.checkpointing.aligned-checkpoint-timeout": "checkpoint.alignment_timeout",
    "state.backend.type": "state.backend",
    "state.backend.incremental": "state.incremental",
    "state.checkpoints.dir": "checkpoint.dir",
    "state.checkpoints.num-retained": "checkpoint.retained",
    "taskmanager.memory.process.size": "resources.taskmanager.memory.process.size",
    "taskmanager.cpu.cores": "resources.taskmanager.cpu.cores",
    "restart-strategy": "restart.strategy",
    "restart-strategy.type": "restart.strategy",
    "restart-strategy.fixed-delay.attempts": "restart.attempts",
    "restart-strategy.fixed-delay.delay": "restart.delay",
    "restart-strategy.exponential-delay.initial-backoff": "restart.delay",
    "restart-strategy.exponential-delay.max-backoff": "restart.max_delay",
    "restart-strategy.exponential-delay.backoff-multiplier": "restart.backoff_multiplier",
    "restart-strategy.exponential-delay.jitter-factor": "restart.jitter",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "restart.reset_after",
    "restart-strategy.failure-rate.delay": "restart.delay",
    "restart-strategy.failure-rate.failure-rate-interval": "restart.failure_interval",
    "restart-strategy.failure-rate.max-failures-per-interval": "restart.failures_per_interval",
}


def parse_config(config: Mapping[str, Any] | None, origin: Origin) -> RuntimeSettings:
    """The runtime's settings. Raises ConfigError for an unknown key or a value that does not fit."""
    if config is None or config == {}:
        return RuntimeSettings()
    from pydantic import ValidationError

    from sage.core.api.config_model import ConfigModel

    known = {field.alias or name for name, field in ConfigModel.model_fields.items()}
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in _flat(config, origin):
        key = _ALIASES.get(name, name)
        if key not in known:
            raise _unknown(name, known, origin)
        if key in written:
            raise _twice(key, written[key], name, origin)
        values[key], written[key] = value, name
    try:
        return ConfigModel.model_validate(values).settings()
    except ValidationError as error:
        raise _wrong(error, written, origin) from error


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


def _wrong(error: ValidationError, written: Mapping[str, str], origin: Origin) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    cause = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("enum", "literal_error"):
        allowed = str(first.get("ctx", {}).get("expected", "")).replace("'", "")
        cause = f"{first['input']!r} is none of {allowed.replace(' or ', ', ')}"
    return ConfigError(f"Configuration key {written.get(key, key)!r} has a wrong value ({origin})", cause=cause)


def _twice(key: str, first: str, second: str, origin: Origin) -> ConfigError:
    return ConfigError(
        f"Configuration key {key!r} is given twice ({origin})",
        cause=f"{first!r} and {second!r} mean the same",
        hint=f"keep {key!r}",
    )


def _unknown(name: str, known: set[str], origin: Origin) -> ConfigError:
    near = difflib.get_close_matches(name, [*sorted(known), *_ALIASES], 1, cutoff=0.4)
    return ConfigError(
        f"Unknown configuration key {name!r} ({origin})",
        cause="a misspelt key would silently do nothing",
        hint=f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}",
    )
