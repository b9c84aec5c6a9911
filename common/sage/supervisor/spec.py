"""What a daemon is before it runs: command, address, how to tell that it is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sage.common.config.ports import check_port
from sage.common.errors import SageError, UsageError

__all__ = ["DaemonSpec"]


@dataclass(slots=True, frozen=True)
class DaemonSpec:
    """How to start one daemon.

    kind: gateway, llm or embedding. `env` is added to the supervisor's environment (secrets belong here, never in
    argv). The daemon runs in `.sage/`, so paths in argv must be absolute. It is ready when GET `health_path` answers
    200; `stop_grace_s` passes between SIGTERM and SIGKILL.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    host: str
    port: int
    env: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    model: str = ""
    ready_timeout_s: float = 60
    stop_grace_s: float = 10

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name) or self.name.startswith("."):
            raise UsageError(
                f"{self.name!r} is not a name for a daemon", cause="letters, digits, '-', '_' and '.' make a name"
            )
        if not self.argv:
            raise UsageError(f"The daemon {self.name} has no command")
        check_port(self.port)

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def probe_host(self) -> str:
        """The address at which this machine reaches the daemon."""
        return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def same_as(self, other: DaemonSpec) -> bool:
        """Whether a daemon started from `other` is what this spec asks for (timeouts do not count)."""
        mine, theirs = ((s.name, s.kind, s.argv, s.host, s.port, s.env, s.model) for s in (self, other))
        return mine == theirs

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "argv": list(self.argv)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], env: Mapping[str, str] | None = None) -> DaemonSpec:
        """From plain JSON values; `env` fills in what a record leaves out. Raises UsageError when it is no spec."""
        try:
            if not isinstance(record["argv"], list | tuple):
                raise TypeError("argv must be a list")
            return cls(
                name=str(record["name"]),
                kind=str(record["kind"]),
                argv=tuple(str(word) for word in record["argv"]),
                host=str(record["host"]),
                port=int(record["port"]),
                env={str(k): str(v) for k, v in dict(record.get("env") or env or {}).items()},
                health_path=str(record.get("health_path") or "/health"),
                model=str(record.get("model") or ""),
                ready_timeout_s=float(record.get("ready_timeout_s") or 60),
                stop_grace_s=float(record.get("stop_grace_s") or 10),
            )
        except SageError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("This is no daemon specification", cause=f"{type(error).__name__}: {error}") from error
