"""The settings that the runtime reads, as plain values; times in seconds. `sage.core.api.config` makes them of keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "AsyncSettings",
    "CheckpointMode",
    "CheckpointSettings",
    "FailurePolicy",
    "ObservabilitySettings",
    "RestartKind",
    "RestartSettings",
    "RuntimeSettings",
    "ServiceSettings",
    "StateSettings",
]


class CheckpointMode(StrEnum):
    """What holds after a recovery. NONE: no periodic checkpoints (savepoints are still possible)."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"
    NONE = "none"


class RestartKind(StrEnum):
    """The restart strategies, as in Flink."""

    NONE = "none"
    FIXED_DELAY = "fixed-delay"
    EXPONENTIAL_DELAY = "exponential-delay"
    FAILURE_RATE = "failure-rate"


class FailurePolicy(StrEnum):
    """What a record does at which a function raises: fail the job, vanish (counted), or go to the dead letters."""

    FAIL = "fail"
    SKIP = "skip"
    DEAD_LETTER = "dead-letter"


@dataclass(slots=True, frozen=True)
class CheckpointSettings:
    """When checkpoints are made and how many are kept.

    `interval` is None where none are made periodically. `alignment_timeout` is None where barriers never overtake
    records; 0: always. `tolerable_failures`: so many may fail in a row before the job does.
    """

    mode: CheckpointMode = CheckpointMode.NONE
    interval: float | None = None
    timeout: float = 600.0
    min_pause: float = 0.0
    retained: int = 2
    tolerable_failures: int = 10
    alignment_timeout: float | None = None
    directory: str | None = None

    @property
    def enabled(self) -> bool:
        """Whether checkpoints are made periodically and at the end."""
        return self.mode is not CheckpointMode.NONE


@dataclass(slots=True, frozen=True)
class RestartSettings:
    """`attempts` is None for no limit. `failures` in `interval` seconds is what failure-rate allows."""

    kind: RestartKind = RestartKind.NONE
    attempts: int | None = 10
    delay: float = 1.0
    max_delay: float = 60.0
    multiplier: float = 2.0
    jitter: float = 0.1
    reset_after: float = 3600.0
    failures: int = 3
    interval: float = 300.0
    deadline: float = 60.0


@dataclass(slots=True, frozen=True)
class StateSettings:
    """`directory` holds the working files of disk backends; None: a temporary folder. `memory` in bytes, a budget."""

    backend: str = "memory"
    directory: str | None = None
    incremental: bool = True
    memory: int | None = None


@dataclass(slots=True, frozen=True)
class AsyncSettings:
    """Of operators with async functions that name none: records in flight in a subtask; seconds for each, or None."""

    capacity: int = 100
    timeout: float | None = None


@dataclass(slots=True, frozen=True)
class ObservabilitySettings:
    """`interval`: seconds between two writes of a job's numbers to the state store. `prometheus_port`: where they are
    served on the loopback interface; None: nowhere. `tracing`: whether up to `traces` records a second and source
    subtask are traced.
    """

    interval: float = 0.5
    prometheus_port: int | None = None
    tracing: bool = False
    traces: float = 100.0


@dataclass(slots=True, frozen=True)
class ServiceSettings:
    """`record`: answers of services are kept for replays, in `directory` (None: `.sage/service-log/`)."""

    record: bool = False
    directory: str | None = None


@dataclass(slots=True, frozen=True)
class RuntimeSettings:
    """`buffer_timeout` in seconds; `buffer_size` in records; `channel_capacity` in batches.

    `object_reuse`: records are handed from operator to operator as they are; false: as copies. `latency_interval`: how
    often each source sends a latency marker; None: never. `hang_timeout`: a
    function that takes longer for one call fails the job; None: never. `processes`: how many worker processes `runtime`
    "processes" has; None: as many as there are cores, but no more than an operator has subtasks.
    """

    parallelism: int = 1
    buffer_timeout: float = 0.01
    buffer_size: int = 1024
    channel_capacity: int = 4
    latency_interval: float | None = 1.0
    chaining: bool = True
    object_reuse: bool = True
    runtime: str = "threads"
    processes: int | None = None
    cores: float | None = None
    hang_timeout: float | None = None
    on_error: FailurePolicy = FailurePolicy.FAIL
    dead_letter: str | None = None
    observability: ObservabilitySettings = field(default_factory=ObservabilitySettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    restart: RestartSettings = field(default_factory=RestartSettings)
    state: StateSettings = field(default_factory=StateSettings)
    asynchronous: AsyncSettings = field(default_factory=AsyncSettings)
    services: ServiceSettings = field(default_factory=ServiceSettings)
