"""The configuration keys and what they may hold, as a pydantic model. Imported only when a configuration is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from sage.core.api.units import parse_duration, parse_size
from sage.core.runtime.settings import (
    AsyncSettings,
    CheckpointMode,
    CheckpointSettings,
    FailurePolicy,
    ObservabilitySettings,
    RestartKind,
    RestartSettings,
    RuntimeSettings,
    ServiceSettings,
    StateSettings,
)

__all__ = ["ConfigModel"]

DEFAULT_INTERVAL = 10.0  # seconds between checkpoints, where they are asked for without saying how often


def _whole(value: object, least: int) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{value!r} is no whole number of at least {least}")
    return number


def _count(value: object) -> int:
    return _whole(value, 1)


def _number(value: object) -> int:
    return _whole(value, 0)


def _attempts(value: object) -> int | None:
    return None if value in ("unlimited", None) else _whole(value, 0)


def _flag(value: object) -> bool:
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in known:
        raise ValueError(f"{value!r} is neither true nor false")
    return known[str(value).lower()]


def _backend(value: object) -> object:
    return "memory" if value == "hashmap" else value  # Flink's name of it


def _positive(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not number > 0 or isinstance(value, bool):
        raise ValueError(f"{value!r} is no number above 0")
    return number


def _longer_than_nothing(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} is no time: it must be longer than 0")
    return seconds


def _maybe(value: object) -> float | None:
    """A duration, or none/off."""
    return None if value in (None, "none", "off") else parse_duration(value)


def _port(value: object) -> int:
    number = _whole(value, 0)
    if number > 65_535:
        raise ValueError(f"{value!r} is no port")
    return number


Count = Annotated[int, BeforeValidator(_count)]
Number = Annotated[int, BeforeValidator(_number)]
Attempts = Annotated[int | None, BeforeValidator(_attempts)]
Port = Annotated[int, BeforeValidator(_port)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Positive = Annotated[float, BeforeValidator(_positive)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Interval = Annotated[float, BeforeValidator(_longer_than_nothing)]
MaybeDuration = Annotated[float | None, BeforeValidator(_maybe)]
Size = Annotated[int, BeforeValidator(parse_size)]
Text = Annotated[StrictStr, Field(min_length=1)]


class ConfigModel(BaseModel):
    """Every key under its dotted name; what is not given is None, or the default."""

    model_config = ConfigDict(extra="forbid", use_enum_values=False)

    parallelism: Count = 1
    buffer_timeout: Duration = Field(0.01, alias="buffer.timeout")
    buffer_size: Count = Field(1024, alias="buffer.size")
    channel_capacity: Count = Field(4, alias="channel.capacity")
    latency_interval: MaybeDuration = Field(1.0, alias="metrics.latency_interval")
    metrics_interval: Interval = Field(0.5, alias="metrics.interval")
    prometheus_port: Port | None = Field(None, alias="metrics.prometheus.port")
    tracing: Flag = Field(False, alias="tracing.enabled")
    traces: Positive = Field(100.0, alias="tracing.records_per_second")
    chaining: Flag = True
    object_reuse: Flag = Field(True, alias="object.reuse")
    runtime: Literal["threads", "processes"] = "threads"
    processes: Count | None = None
    hang_timeout: MaybeDuration = Field(None, alias="hang.timeout")
    on_error: FailurePolicy = FailurePolicy.FAIL
    dead_letter: Text | None = Field(None, alias="dead_letter.path")

    async_capacity: Count = Field(100, alias="async.capacity")
    async_timeout: MaybeDuration = Field(None, alias="async.timeout")
    record: Flag = Field(False, alias="services.record")
    record_directory: Text | None = Field(None, alias="services.dir")

    backend: Annotated[Literal["memory", "rocksdb"], BeforeValidator(_backend)] = Field("memory", alias="state.backend")
    incremental: Flag = Field(True, alias="state.incremental")
    state_directory: Text | None = Field(None, alias="state.dir")
    memory: Size | None = Field(None, alias="resources.taskmanager.memory.process.size")
    cores: Positive | None = Field(None, alias="resources.taskmanager.cpu.cores")

    checkpointing: CheckpointMode | None = None
    interval: Interval | None = Field(None, alias="checkpoint.interval")
    checkpoint_timeout: Interval = Field(600.0, alias="checkpoint.timeout")
    min_pause: Duration = Field(0.0, alias="checkpoint.min_pause")
    retained: Count = Field(2, alias="checkpoint.retained")
    tolerable_failures: Number = Field(10, alias="checkpoint.tolerable_failures")
    unaligned: Flag = Field(False, alias="checkpoint.unaligned")
    alignment_timeout: MaybeDuration = Field(None, alias="checkpoint.alignment_timeout")
    checkpoint_directory: Text | None = Field(None, alias="checkpoint.dir")

    strategy: RestartKind | None = Field(None, alias="restart.strategy")
    attempts: Attempts = Field(10, alias="restart.attempts")
    delay: Duration = Field(1.0, alias="restart.delay")
    max_delay: Duration = Field(60.0, alias="restart.max_delay")
    multiplier: Positive = Field(2.0, alias="restart.backoff_multiplier")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(0.1, alias="restart.jitter")
    reset_after: Duration = Field(3600.0, alias="restart.reset_after")
    failures: Count = Field(3, alias="restart.failures_per_interval")
    failure_interval: Interval = Field(300.0, alias="restart.failure_interval")
    restart_deadline: Interval = Field(60.0, alias="restart.deadline")

    def settings(self) -> RuntimeSettings:
        """As the runtime reads them."""
        return RuntimeSettings(
            parallelism=self.parallelism,
            buffer_timeout=self.buffer_timeout,
            buffer_size=self.buffer_size,
            latency_interval=self.latency_interval or None,
            channel_capacity=self.channel_capacity,
            chaining=self.chaining,
            object_reuse=self.object_reuse,
            runtime=self.runtime,
            processes=self.processes,
            cores=self.cores,
            hang_timeout=self.hang_timeout,
            on_error=FailurePolicy.DEAD_LETTER if self._dead_letters() else self.on_error,
            dead_letter=self.dead_letter,
            observability=ObservabilitySettings(self.metrics_interval, self.prometheus_port, self.tracing, self.traces),
            checkpoint=self._checkpoint(),
            restart=self._restart(),
            state=StateSettings(self.backend, self.state_directory, self.incremental, self.memory),
            asynchronous=AsyncSettings(self.async_capacity, self.async_timeout or None),
            services=ServiceSettings(self.record, self.record_directory),
        )

    def _dead_letters(self) -> bool:
        """A place for dead letters says that there may be some."""
        return self.dead_letter is not None and "on_error" not in self.model_fields_set

    def _checkpoint(self) -> CheckpointSettings:
        """An interval asks for exactly-once checkpoints, and asking for them gives an interval."""
        mode = self.checkpointing
        if mode is None:
            mode = CheckpointMode.NONE if self.interval is None else CheckpointMode.EXACTLY_ONCE
        interval = None if mode is CheckpointMode.NONE else self.interval or DEFAULT_INTERVAL
        at_once = 0.0 if self.unaligned else None
        return CheckpointSettings(
            mode=mode,
            interval=interval,
            timeout=self.checkpoint_timeout,
            min_pause=self.min_pause,
            retained=self.retained,
            tolerable_failures=self.tolerable_failures,
            alignment_timeout=at_once if self.alignment_timeout is None else self.alignment_timeout,
            directory=self.checkpoint_directory,
        )

    def _restart(self) -> RestartSettings:
        """A number of attempts or a delay without a strategy means the fixed one."""
        kind = self.strategy
        if kind is None:
            asked = self.model_fields_set & {"attempts", "delay"}
            kind = RestartKind.FIXED_DELAY if asked else RestartKind.NONE
        return RestartSettings(
            kind=kind,
            attempts=self.attempts,
            delay=self.delay,
            max_delay=self.max_delay,
            multiplier=max(1.0, self.multiplier),
            jitter=self.jitter,
            reset_after=self.reset_after,
            failures=self.failures,
            interval=self.failure_interval,
            deadline=self.restart_deadline,
        )
