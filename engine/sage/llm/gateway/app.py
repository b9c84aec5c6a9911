"""The gateway's routes."""

from __future__ import annotations

import time

from sage.common.home import SageHome
from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator
from sage.llm.control_plane.manager import ControlPlaneManager, ModelCard
from sage.llm.control_plane.metrics_collector import MetricsCollector
from sage.llm.control_plane.watcher import Watcher
from sage.llm.gateway.inference import InferenceHandler
from sage.llm.gateway.settings import GatewaySettings
from sage.llm.http_app import HttpApp, Request, Route
from sage.llm.prometheus import CONTENT_TYPE


def create_app(settings: GatewaySettings | None = None) -> HttpApp:
    """Return the gateway's ASGI application."""
    settings = settings or GatewaySettings()
    gateway = _Gateway(settings)
    inference = InferenceHandler(gateway.manager, gateway.coordinator, gateway.metrics, settings)
    return HttpApp(
        routes=[
            Route("/v1/chat/completions", {"POST": inference}),
            Route("/v1/completions", {"POST": inference}),
            Route("/v1/completions/stream", {"POST": inference}),
            Route("/v1/embeddings", {"POST": inference}),
            Route("/tokenize", {"POST": inference}),
            Route("/detokenize", {"POST": inference}),
            Route("/v1/models", {"GET": gateway.list_models}),
            Route("/v1/models/", {"GET": gateway.show_model}),
            Route("/health", {"GET": gateway.health}),
            Route("/ready", {"GET": gateway.ready}),
            Route("/metrics", {"GET": gateway.metrics_page}),
        ],
        observe=gateway.metrics.request,
        start=gateway.start,
        stop=gateway.stop,
    )


class _Gateway:
    """The parts of one gateway and its small routes."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.manager = ControlPlaneManager(
            max_running=settings.max_running, max_waiting=settings.max_waiting, policy=settings.policy
        )
        for url in settings.engines:
            self.manager.add("llm", url)
        for url in settings.embeddings:
            self.manager.add("embedding", url)
        self.coordinator = HttpExecutionCoordinator(settings.idle_seconds, settings.engine_key)
        self.metrics = MetricsCollector(lambda: self.manager.upstreams)
        home = (settings.home or SageHome.find()) if settings.follows_home else None
        self.watcher = Watcher(self.manager, self.coordinator, home)
        self._created = int(time.time())

    async def start(self) -> None:
        """Open the connection pool and look for engines."""
        await self.coordinator.start()
        await self.watcher.start()

    async def stop(self) -> None:
        """Stop looking and close the connections."""
        await self.watcher.stop()
        await self.coordinator.stop()

    async def list_models(self, request: Request) -> None:
        """GET /v1/models."""
        await self.watcher.catch_up()
        await request.respond_json(
            200, {"object": "list", "data": [self._shown(card) for card in self.manager.models()]}
        )

    async def show_model(self, request: Request) -> None:
        """GET /v1/models/{id}; an id may hold slashes."""
        await self.watcher.catch_up()
        card = self.manager.find_model(request.path.removeprefix("/v1/models/"))
        await request.respond_json(200, self._shown(card))

    def _shown(self, card: ModelCard) -> dict[str, object]:
        """Return a model as OpenAI lists it, with its kind and its engine beside."""
        return {
            "id": card.id,
            "object": "model",
            "created": self._created,
            "owned_by": "sage",
            "kind": card.kind,
            "engine": card.engine,
        }

    async def health(self, request: Request) -> None:
        """GET /health: the gateway itself is able to serve; beside it, how each engine is."""
        await request.respond_json(200, {"status": "ok", "engines": self._engines()})

    async def ready(self, request: Request) -> None:
        """GET /ready: 200 when at least one engine takes requests."""
        engines = self._engines()
        if any(engine["state"] == "ready" for engine in engines):
            await request.respond_json(200, {"status": "ok", "engines": engines})
        else:
            reason = "no engine is ready" if engines else "no engine is known"
            await request.respond_json(503, {"status": "starting", "reason": reason, "engines": engines})

    def _engines(self) -> list[dict[str, object]]:
        """Return what is known of each engine."""
        return [
            {
                "name": upstream.name,
                "kind": upstream.kind,
                "state": upstream.condition,
                "models": list(upstream.models),
                "running": upstream.queue.running,
                "waiting": upstream.queue.waiting,
                "error": upstream.last_error,
            }
            for upstream in self.manager.upstreams
        ]

    async def metrics_page(self, request: Request) -> None:
        """GET /metrics."""
        await request.respond(200, self.metrics.page(), [CONTENT_TYPE])
