"""What can be set on a gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from sage.common.home import SageHome
from sage.llm.control_plane.strategies.registry import DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits and engines of one gateway.

    Without `engines` and `embeddings` (URLs) the daemons of `home` are followed. `wait_seconds`: how long a request
    waits for an engine that the supervisor is starting or restarting. `max_running` and `max_waiting` hold for each
    engine. `idle_seconds`: the longest silence of an engine inside an answer. `policy`: the name of the scheduling
    policy that orders who waits.
    """

    home: SageHome | None = None
    engines: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    wait_seconds: float = 30.0
    max_running: int = 64
    max_waiting: int = 256
    body_bytes: int = 8 * 1024 * 1024
    idle_seconds: float = 300.0
    policy: str = DEFAULT_POLICY
    engine_key: str = field(default="", repr=False)

    @property
    def follows_home(self) -> bool:
        """Whether the engines come from daemon.json."""
        return not self.engines and not self.embeddings
