"""What the control plane knows of one engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from sage.common.stack import DaemonStatus
from sage.llm.control_plane.admission import AdmissionQueue
from sage.llm.control_plane.classifier import UpstreamKind

_READY = frozenset({"ready", "unhealthy"})
_RETURNING = frozenset({"starting", "ready", "unhealthy", "backing-off", "dead"})


@dataclass(slots=True)
class Upstream:
    """One engine: where it is, which models it serves, how it is.

    `url` has no /v1. `managed`: the supervisor starts and restarts it, and `state` is what daemon.json says; otherwise
    it was named on the command line. `healthy` is what its /health said last, None before the first answer. `suspect`:
    a connection failed after the last good news.
    """

    name: str
    kind: UpstreamKind
    url: str
    queue: AdmissionQueue
    managed: bool = False
    state: str = "unknown"
    supervised: bool = False
    pid: int = 0
    served_as: str = ""
    models: tuple[str, ...] = ()
    healthy: bool | None = None
    suspect: bool = False
    last_error: str = ""
    probed_at: float = field(default=float("-inf"))

    @property
    def usable(self) -> bool:
        """Whether a request may be sent there now."""
        if not self.managed:
            return True  # nobody else tells us of it: trying is how to know
        return self.alive and (self.healthy is True or (self.state in _READY and not self.suspect))

    @property
    def alive(self) -> bool:
        """Whether there is a process to talk to, as far as the supervisor knows."""
        return not self.managed or self.state in _READY or self.state == "starting"

    @property
    def may_return(self) -> bool:
        """Whether waiting a little is likely to help: a living supervisor is about to have it back."""
        return self.managed and self.supervised and self.state in _RETURNING

    @property
    def is_news(self) -> bool:
        """Whether it is said to be ready while its models are still unknown here."""
        return self.managed and self.state == "ready" and not self.models and self.healthy is None

    @property
    def condition(self) -> str:
        """One word for people: ready, down, or what the supervisor says."""
        if self.managed and self.state not in _READY:
            return self.state
        if self.suspect or self.healthy is False:
            return "down"
        return "ready" if self.healthy or self.managed else "unknown"

    def knows(self, model: str) -> bool:
        """Whether it serves a model under this name."""
        return model in self.models or (model != "" and model == self.served_as)

    def local_name(self, model: str) -> str:
        """Return the name by which the engine itself knows `model`: an alias or no name means its first model."""
        if model in self.models:
            return model
        return self.models[0] if self.models else (model or self.served_as or "default")

    def found_down(self, reason: str) -> None:
        """Note that a connection failed."""
        self.suspect = True
        self.healthy = False
        self.last_error = reason

    def found_well(self, models: tuple[str, ...]) -> None:
        """Note that /health is good."""
        self.suspect = False
        self.healthy = True
        self.last_error = ""
        self.models = models or self.models

    def follow(self, daemon: DaemonStatus, supervised: bool) -> None:
        """Take over what daemon.json says; a process that is new or has just become ready starts with a clean record,
        but keeps its known models."""
        became_ready = daemon.state == "ready" != self.state
        if became_ready or (daemon.url, daemon.pid) != (self.url, self.pid):
            self.healthy = None
            self.suspect = False
            self.probed_at = float("-inf")
        self.url, self.pid = daemon.url, daemon.pid
        self.state, self.supervised, self.served_as = daemon.state, supervised, daemon.model
        if not self.alive:
            self.healthy = None
