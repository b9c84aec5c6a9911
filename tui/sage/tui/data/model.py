"""What the dashboard knows at one moment: plain, immutable data.

Times are seconds since the epoch, spans are seconds, ratios are 0 to 1, rates are per second. ``None`` always means
"not known", never zero. Nothing here knows where a number came from or how it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "AcceleratorView",
    "CheckpointView",
    "DaemonView",
    "EmbeddingView",
    "EngineView",
    "Freshness",
    "GatewayView",
    "JobView",
    "OperatorView",
    "Quantiles",
    "RouteView",
    "Snapshot",
    "StackView",
    "SystemView",
]

Series = tuple[float, ...]
"""One number's recent past, oldest first, one value a refresh."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old a daemon's numbers are. ``age_s`` is None before the first answer; ``reason`` says why they are stale."""

    age_s: float | None = None
    stale: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Latency quantiles; ``window_s`` is the span they cover, 0 for "since the daemon started"."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    count: int = 0
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AcceleratorView:
    """One GPU as NVML sees it. Memory in bytes, power in watts, temperature in degrees Celsius."""

    index: int
    name: str
    utilisation: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class SystemView:
    """The machine. ``cpu`` is the mean over all cores."""

    cpu: float | None = None
    cores: int = 0
    load1: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_free: int | None = None
    accelerators: tuple[AcceleratorView, ...] = ()
    cpu_history: Series = ()
    memory_history: Series = ()


@dataclass(frozen=True, slots=True)
class DaemonView:
    """One supervised process: the recorded facts, corrected by what is true now.

    ``state`` is the supervisor's word unless the process is gone (``dead``) or does not answer (``unhealthy``).
    ``cpu`` counts cores (1.0 is one core busy) over the process and its children.
    """

    name: str
    kind: str
    state: str
    pid: int | None = None
    url: str = ""
    port: int | None = None
    model: str = ""
    restarts: int = 0
    uptime_s: float | None = None
    cpu: float | None = None
    rss: int | None = None
    log: str = ""
    last_error: str = ""
    exit_code: int | None = None
    health: str = ""
    fresh: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, slots=True)
class StackView:
    """The supervisor and its daemons."""

    supervisor_pid: int | None = None
    supervisor_alive: bool = False
    daemons: tuple[DaemonView, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineView:
    """One LLM engine's load."""

    name: str
    model: str = ""
    state: str = ""
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prefix_hits: float | None = None
    prompt_rate: float | None = None
    token_rate: float | None = None
    prompt_tokens: float | None = None
    tokens: float | None = None
    requests: tuple[tuple[str, float], ...] = ()
    ttft: Quantiles = field(default_factory=Quantiles)
    tpot: Quantiles = field(default_factory=Quantiles)
    token_history: Series = ()
    kv_history: Series = ()
    fresh: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, slots=True)
class RouteView:
    """One gateway route's share of the traffic."""

    route: str
    rate: float | None
    total: float
    latency: Quantiles


@dataclass(frozen=True, slots=True)
class GatewayView:
    """The gateway's traffic. ``error_ratio`` counts 5xx and 429 answers among those of the last window."""

    state: str = ""
    rate: float | None = None
    total: float | None = None
    errors: float | None = None
    error_ratio: float | None = None
    rejected: float | None = None
    inflight: float | None = None
    queue: float | None = None
    latency: Quantiles = field(default_factory=Quantiles)
    ttft: Quantiles = field(default_factory=Quantiles)
    routes: tuple[RouteView, ...] = ()
    rate_history: Series = ()
    latency_history: Series = ()
    fresh: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, slots=True)
class EmbeddingView:
    """The embedding server's traffic."""

    name: str
    model: str = ""
    state: str = ""
    text_rate: float | None = None
    texts: float | None = None
    batch_size: float | None = None
    latency: Quantiles = field(default_factory=Quantiles)
    text_history: Series = ()
    fresh: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, slots=True)
class OperatorView:
    """One operator of a job. ``busy`` is the share of time spent in the user's function; ``idle`` without input and
    ``blocked`` (back-pressured) are its task's. ``lag_s``: how far event time is behind the clock; ``latency_p99`` from
    a source to here."""

    name: str
    kind: str
    records_in: int
    records_out: int
    errors: int
    queue: int
    rate: float | None = None
    busy: float | None = None
    idle: float | None = None
    blocked: float | None = None
    lag_s: float | None = None
    state_bytes: int = 0
    latency_p99: float | None = None


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """The last checkpoint of a job that is over; ``failed`` counts the ones known to have failed."""

    number: int
    state: str
    at: float
    seconds: float
    written: int
    size: int
    failed: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class JobView:
    """One pipeline run. ``state`` is ``lost`` when the record says running but the process is gone."""

    id: str
    name: str
    path: str
    state: str
    pid: int
    started_at: float
    seconds: float
    records_in: int
    records_out: int
    parallelism: int = 1
    error: str = ""
    rate: float | None = None
    operators: tuple[OperatorView, ...] = ()
    rate_history: Series = ()
    checkpoint: CheckpointView | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at ``taken_at``. ``notes`` are things a person should know (corrupt files, a dead supervisor)."""

    taken_at: float
    home: str
    system: SystemView = field(default_factory=SystemView)
    stack: StackView = field(default_factory=StackView)
    engines: tuple[EngineView, ...] = ()
    gateway: GatewayView | None = None
    embeddings: tuple[EmbeddingView, ...] = ()
    jobs: tuple[JobView, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def troubles(self) -> tuple[str, ...]:
        """One line for each daemon that should run and does not."""
        return tuple(
            f"{daemon.name} is {daemon.state}" + (f": {daemon.last_error}" if daemon.last_error else "")
            for daemon in self.stack.daemons
            if daemon.state in {"dead", "failed", "crash-loop", "backing-off", "unhealthy"}
        )

    @property
    def empty(self) -> bool:
        """Nothing runs and nothing has run: the moment to say how to begin."""
        return not self.stack.daemons and not self.jobs
