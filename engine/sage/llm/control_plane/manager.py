"""The registry of engines: where they come from, which models they serve, which one takes a request.

Engines are either those of daemon.json, followed as the supervisor starts, moves and restarts them, or those named on
the command line. Starts no process itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from sage.common.stack import StackStatus
from sage.llm.asgi import ApiError
from sage.llm.control_plane.admission import AdmissionQueue
from sage.llm.control_plane.classifier import InferenceCall, RequestType, UpstreamKind
from sage.llm.control_plane.placement import ReplicaChooser
from sage.llm.control_plane.strategies.base import Ticket
from sage.llm.control_plane.strategies.registry import DEFAULT_POLICY, create_policy
from sage.llm.control_plane.upstream import Upstream

_KINDS: tuple[UpstreamKind, ...] = ("llm", "embedding")
_WORDS = {"llm": "LLM engine", "embedding": "embedding server"}
_ROUTES = {"llm": "/v1/chat/completions or /v1/completions", "embedding": "/v1/embeddings"}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model, and the engine that serves it."""

    id: str
    kind: UpstreamKind
    engine: str


class ControlPlaneManager:
    """Knows the engines and chooses among them."""

    def __init__(
        self,
        *,
        max_running: int = 64,
        max_waiting: int = 256,
        policy: str = DEFAULT_POLICY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError for an unknown policy."""
        create_policy(policy, clock)
        self._limits = (max_running, max_waiting)
        self._policy = policy
        self._clock = clock
        self._placement = ReplicaChooser()
        self._upstreams: dict[str, Upstream] = {}
        self._changed = asyncio.Event()

    @property
    def upstreams(self) -> list[Upstream]:
        """Return the engines in the order in which they were named."""
        return list(self._upstreams.values())

    def add(self, kind: UpstreamKind, url: str) -> Upstream:
        """Register an engine that somebody else runs; `url` may end in /v1."""
        number = sum(1 for upstream in self._upstreams.values() if upstream.kind == kind) + 1
        name = ("engine" if kind == "llm" else "embedding") + (f"-{number}" if number > 1 else "")
        upstream = Upstream(name, kind, url.rstrip("/").removesuffix("/v1"), self._queue())
        self._upstreams[name] = upstream
        return upstream

    def sync(self, stack: StackStatus) -> None:
        """Follow the supervisor's daemons: new ones are added, gone ones forgotten, moved ones followed."""
        daemons = {daemon.name: daemon for daemon in stack.daemons if daemon.kind in _KINDS and daemon.url}
        for name in [name for name, one in self._upstreams.items() if one.managed and name not in daemons]:
            del self._upstreams[name]
        for name, daemon in daemons.items():
            upstream = self._upstreams.get(name)
            if upstream is None:
                kind: UpstreamKind = "embedding" if daemon.kind == "embedding" else "llm"
                upstream = self._upstreams[name] = Upstream(name, kind, daemon.url, self._queue(), managed=True)
            upstream.follow(daemon, stack.supervisor_alive)
        self.notify()

    def _queue(self) -> AdmissionQueue:
        """Return the queue of a new engine."""
        running, waiting = self._limits
        return AdmissionQueue(running, waiting, self._clock, create_policy(self._policy, self._clock))

    @property
    def policy(self) -> str:
        """Return the name of the scheduling policy."""
        return self._policy

    def use_policy(self, name: str) -> None:
        """Order all queues by another policy from now on; who waits keeps waiting. Raises ConfigError for an unknown
        name, and then nothing changes."""
        policies = [(upstream, create_policy(name, self._clock)) for upstream in self._upstreams.values()]
        create_policy(name, self._clock)
        self._policy = name
        for upstream, policy in policies:
            upstream.queue.use(policy)

    def ticket(self, call: InferenceCall, request_id: str = "", key: str = "") -> Ticket:
        """Return the ticket of a call that has just arrived; `key` stands for its API key."""
        now = self._clock()
        deadline = None if call.deadline_ms is None else now + call.deadline_ms / 1000
        return Ticket(request_id, call.type.value, key, call.tokens, call.priority, deadline, now)

    def notify(self) -> None:
        """Wake everyone who waits for an engine."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, seconds: float) -> None:
        """Return when something changed, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def models(self) -> list[ModelCard]:
        """Return every model that some engine serves, each once, LLMs first."""
        cards: dict[str, ModelCard] = {}
        for kind in _KINDS:
            for upstream in self._of_kind(kind):
                for model in upstream.models:
                    cards.setdefault(model, ModelCard(model, kind, upstream.name))
        return list(cards.values())

    def find_model(self, name: str) -> ModelCard:
        """Return the card of a model; raises ApiError 404 naming the nearest one."""
        for card in self.models():
            if card.id == name:
                return card
        raise self._no_such_model(name, self._upstreams.values())

    def choose(self, call: InferenceCall) -> Upstream | None:
        """Return the engine for a call among those that serve its model, as `ReplicaChooser` says.

        None: there is one, it cannot take requests yet, and waiting is likely to help. Raises ApiError: 404 for an
        unknown model, 400 for a model of the wrong kind, 503 where no engine will be there soon.
        """
        candidates = self._matching(call)
        usable = [upstream for upstream in candidates if upstream.usable]
        if usable:
            well = [upstream for upstream in usable if upstream.healthy is not False]
            return self._placement.choose(call, well or usable)
        if any(upstream.may_return for upstream in candidates):
            return None
        raise self.unavailable(call, candidates)

    def _of_kind(self, kind: UpstreamKind) -> list[Upstream]:
        """Return the engines of a kind."""
        return [upstream for upstream in self._upstreams.values() if upstream.kind == kind]

    def _matching(self, call: InferenceCall) -> list[Upstream]:
        """Return the engines that serve the call's model, or may: one that never answered yet is not ruled out."""
        engines = self._of_kind(call.type.upstream_kind)
        if not call.model:
            return engines
        known = [upstream for upstream in engines if upstream.knows(call.model)]
        if not known and call.type is RequestType.EMBEDDING:
            known = [upstream for upstream in self._of_kind("llm") if upstream.knows(call.model)]
        if known:
            return known
        silent = [upstream for upstream in engines if not upstream.models]
        if silent:
            return silent
        raise self._wrong_model(call, engines)

    def _wrong_model(self, call: InferenceCall, engines: list[Upstream]) -> ApiError:
        """Return the refusal of a model that no engine of the right kind serves."""
        other = next((one for one in self._upstreams.values() if one.knows(call.model)), None)
        if other is None and not engines:
            return self.unavailable(call)
        if other is None:
            return self._no_such_model(call.model, engines)
        return ApiError(
            400,
            f"{call.model[:200]!r} is served by the {_WORDS[other.kind]}: use it on {_ROUTES[other.kind]}.",
            param="model",
            code="wrong_model_kind",
        )

    def _no_such_model(self, name: str, engines: Iterable[Upstream]) -> ApiError:
        """Return the refusal of an unknown model, naming the nearest."""
        names = list(dict.fromkeys(model for upstream in engines for model in upstream.models))
        near = get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"Served here: {', '.join(names) or 'none yet'}."
        return ApiError(404, f"There is no model {name[:200]!r}. {hint}", param="model", code="model_not_found")

    def unavailable(self, call: InferenceCall, candidates: Iterable[Upstream] = ()) -> ApiError:
        """Return the refusal while no engine can take the call."""
        what = _WORDS[call.type.upstream_kind]
        state = next((f" ({one.name}: {one.condition}{_because(one)})" for one in candidates), "")
        left_out = call.type is RequestType.EMBEDDING and not state
        hint = "sage llm serve (without --no-embedding)" if left_out else "sage llm serve"
        return ApiError(
            503,
            f"No {what} is running{state}. Start one:  {hint}  and look at:  sage llm status",
            type="service_unavailable",
            code="engine_unavailable",
            headers=[(b"retry-after", b"2")],
        )


def _because(upstream: Upstream) -> str:
    """Return why an engine is down, where that is known."""
    return f", {upstream.last_error}" if upstream.last_error else ""
