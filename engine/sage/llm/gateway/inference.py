"""The life of an inference request: classify, choose an engine, wait for a place, send, pass the answer on."""

from __future__ import annotations

import time

from sage.common.logs import get_logger
from sage.llm.asgi import ApiError, CancelOnDisconnect
from sage.llm.control_plane.admission import AdmissionRefused, QueueFull
from sage.llm.control_plane.answers import Answer, read_answer
from sage.llm.control_plane.classifier import InferenceCall, RequestClassifier, RequestType
from sage.llm.control_plane.executors.embedding_executor import EmbeddingExecutor
from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator, UpstreamUnreachable
from sage.llm.control_plane.manager import ControlPlaneManager
from sage.llm.control_plane.metrics_collector import MetricsCollector
from sage.llm.control_plane.strategies.base import Refusal, Ticket
from sage.llm.control_plane.upstream import Upstream
from sage.llm.gateway.hints import key_of, with_headers
from sage.llm.gateway.relay import relay_stream
from sage.llm.gateway.settings import GatewaySettings
from sage.llm.http_app import Request

_log = get_logger("sage.llm.gateway")

MAX_SENT = 2
"""How often a request may reach an engine that then dies: a request that kills engines is not tried for ever."""

_POLL_SECONDS = 0.1


class InferenceHandler:
    """Handles the three inference routes."""

    def __init__(
        self,
        manager: ControlPlaneManager,
        coordinator: HttpExecutionCoordinator,
        metrics: MetricsCollector,
        settings: GatewaySettings,
    ) -> None:
        self._manager = manager
        self._coordinator = coordinator
        self._embeddings = EmbeddingExecutor(coordinator)
        self._classifier = RequestClassifier()
        self._metrics = metrics
        self._settings = settings
        self._pending = 0

    async def __call__(self, request: Request) -> None:
        """POST to /v1/chat/completions, /v1/completions or /v1/embeddings."""
        call = self._classifier.classify(request.path, await request.body(self._settings.body_bytes))
        call = with_headers(call, request.scope)
        async with CancelOnDisconnect(request.receive):
            await self._carry_out(request, call)

    async def _carry_out(self, request: Request, call: InferenceCall) -> None:
        """Try until an engine's answer has begun, it is clear that none will, or the time to wait is over."""
        deadline = time.perf_counter() + self._settings.wait_seconds
        sent = 0
        ticket = self._manager.ticket(call, request.id.decode(), key_of(request.scope))
        while True:
            upstream = await self._choose(call, deadline)
            admitted = await self._admit(upstream, ticket)
            try:
                self._name_engine(request, upstream)
                await self._attempt(request, call, upstream)
                return
            except UpstreamUnreachable as failure:
                sent += failure.sent
                self._note_failure(request, call, upstream, failure, gave_up=sent >= MAX_SENT)
            finally:
                upstream.queue.release(admitted, ticket)

    async def _choose(self, call: InferenceCall, deadline: float) -> Upstream:
        """Return the engine for the call, waiting for one that is about to be back."""
        upstream = self._manager.choose(call)
        if upstream is not None:
            return upstream
        if self._pending >= self._settings.max_waiting:
            raise self._refuse_busy(1)
        self._pending += 1
        try:
            while (left := deadline - time.perf_counter()) > 0:
                await self._manager.wait_for_change(min(left, _POLL_SECONDS))
                upstream = self._manager.choose(call)
                if upstream is not None:
                    return upstream
        finally:
            self._pending -= 1
        raise self._manager.unavailable(
            call, [one for one in self._manager.upstreams if one.kind == call.type.upstream_kind]
        )

    async def _admit(self, upstream: Upstream, ticket: Ticket) -> float:
        """Wait for a place at the engine; raises ApiError: 429 where too many wait already, 503 where the policy says
        that the wait would be too long."""
        try:
            return await upstream.queue.acquire(ticket)
        except QueueFull as full:
            raise self._refuse_busy(full.retry_after) from full
        except AdmissionRefused as refused:
            raise self._refuse(refused.refusal) from refused

    def _refuse(self, refusal: Refusal) -> ApiError:
        """Return a policy's refusal for the client."""
        self._metrics.rejected()
        return ApiError(
            503,
            f"{refusal.message} Try again in {refusal.retry_after} s.",
            type="service_unavailable",
            code=refusal.code,
            headers=[(b"retry-after", str(refusal.retry_after).encode())],
        )

    def _refuse_busy(self, seconds: int) -> ApiError:
        """Return the refusal of a request for which there is no place."""
        self._metrics.rejected()
        return ApiError(
            429,
            f"Too many requests wait already. Try again in {seconds} s.",
            type="rate_limit_error",
            code="queue_full",
            headers=[(b"retry-after", str(seconds).encode())],
        )

    def _name_engine(self, request: Request, upstream: Upstream) -> None:
        """Put into the answer's headers which engine it came from and how long the request waited."""
        waited = (time.perf_counter() - request.started) * 1000
        request.extra_headers[1:] = [
            (b"x-sage-engine", upstream.name.encode()),
            (b"x-sage-queue-ms", f"{waited:.1f}".encode()),
        ]

    async def _attempt(self, request: Request, call: InferenceCall, upstream: Upstream) -> None:
        """Send the call to one engine and pass its answer on; raises UpstreamUnreachable while nothing was sent on."""
        request_id = request.id.decode()
        if call.type is RequestType.EMBEDDING:
            await _respond(request, await self._embeddings.execute(upstream, call, request_id))
            return
        body = call.body_for(upstream.local_name(call.model))
        response = await self._coordinator.open(upstream, call.path, body, request_id)
        try:
            if call.stream and response.status == 200 and response.content_type == "text/event-stream":
                await relay_stream(request, response, upstream, self._metrics)
            else:
                await _respond(request, await read_answer(response, upstream))
        finally:
            response.close()

    def _note_failure(
        self, request: Request, call: InferenceCall, upstream: Upstream, failure: UpstreamUnreachable, *, gave_up: bool
    ) -> None:
        """Remember that the engine is down; raises ApiError where trying again makes no sense."""
        upstream.found_down(failure.reason)
        _log.warning(
            "no answer from engine", engine=upstream.name, reason=failure.reason, request_id=request.id.decode()
        )
        if gave_up:
            raise ApiError(
                502,
                f"The engine {upstream.name!r} went away while it worked on this request ({failure.reason}). "
                "Look at:  sage llm logs",
                type="upstream_error",
                code="upstream_died",
            )
        others = [one for one in self._manager.upstreams if one is not upstream and one.kind == upstream.kind]
        if not upstream.may_return and not any(one.healthy for one in others):
            raise self._manager.unavailable(call, [upstream])
        self._metrics.retried()


async def _respond(request: Request, answer: Answer) -> None:
    """Send a whole answer."""
    await request.respond(answer.status, answer.body, answer.headers)
