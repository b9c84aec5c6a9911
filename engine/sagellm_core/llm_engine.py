"""`LLMEngine`: text or token ids in, text out, asynchronously; one model, one background thread that steps.

    engine = LLMEngine(LLMEngineConfig(model_path="sage-builtin"))
    await engine.start()
    response = await engine.generate("Hello", max_tokens=20)
    async for event in engine.stream("Once upon a time"): ...
    await engine.stop()

The event loop that called `start` only passes messages; loading, tokenising long texts and computing happen on other
threads. Importing this module does not import torch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from sagellm_core.backends.base import check_kind
from sagellm_core.config import LLMEngineConfig
from sagellm_core.core_of import limits_of, new_core
from sagellm_core.doorbell import Doorbell
from sagellm_core.engine_core.loop import RequestLoop, start_thread
from sagellm_core.engine_core.messages import CoreStats, Update
from sagellm_core.errors import EngineError, invalid
from sagellm_core.intake import encode, new_request, submission, take_in, take_in_text
from sagellm_core.models.bundle import ModelBundle, open_bundle
from sagellm_core.request_state import Hear, News, RequestState
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_core.text.tools import ToolFormat
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Request, Response, StreamEvent
from sagellm_protocol.sampling import SamplingParams

__all__ = ["LLMEngine"]

_LOG = logging.getLogger("sagellm_core")


class LLMEngine:
    """A running model. Use it from the event loop that called `start`."""

    def __init__(self, config: LLMEngineConfig) -> None:
        self.config = config
        self._bundle: ModelBundle | None = None
        self._core: RequestLoop | None = None
        self._requests: dict[str, RequestState] = {}
        self._seq_ids: dict[str, str] = {}
        self._submitted = count()
        self._starting = asyncio.Lock()
        self._bell: Doorbell | None = None
        self._stopped: asyncio.Event | None = None
        self._started_at = 0.0
        self._reloads = 0

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the model; returns when requests can be answered.

        Raises ModelLoadError when the model cannot be used, EngineError for what this engine does not have.
        """
        async with self._starting:
            if self._core is None:
                await self._start()

    async def _start(self) -> None:
        check_kind(self.config.backend_type)
        loop = asyncio.get_running_loop()
        bundle = await asyncio.to_thread(open_bundle, self.config)
        core = self._new_core(bundle)
        ready: asyncio.Future[None] = loop.create_future()
        stopped = asyncio.Event()

        def on_ready(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(_settle, ready, error)

        def on_stopped() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopped.set)

        self._bell, self._bundle, self._core, self._stopped = Doorbell(loop), bundle, core, stopped
        start_thread(core, on_ready, on_stopped)
        try:
            await ready
        except BaseException:
            core.stop()
            self._core = None
            raise
        self._started_at = monotonic()

    async def stop(self) -> None:
        """End running requests with `unavailable`, then free the model. Safe to call twice."""
        core, self._core = self._core, None
        if core is None or self._stopped is None:
            return
        core.stop()
        await self._stopped.wait()
        if self._bell is not None:
            self._bell.close()

    async def sleep(self) -> None:
        """Give the device's memory back until `wake`. Requests that run go on then; new ones are refused meanwhile.

        Raises EngineError when the engine is not running.
        """
        await asyncio.wrap_future(self._started().sleep())

    async def wake(self) -> None:
        """End a sleep. Raises EngineError when the engine is not running."""
        await asyncio.wrap_future(self._started().wake())

    @property
    def asleep(self) -> bool:
        return self._core is not None and self._core.asleep

    async def reload(self, model_path: str | None = None) -> None:
        """Load the model again, or another one. New requests are refused meanwhile; those that run are answered first.

        Raises what `start` raises; the engine then goes on with the model that it had. Who stops waiting takes the
        order back, unless the model is being loaded: then it is loaded to the end.
        """
        core = self._started()
        config = self.config.model_copy(update={"model_path": model_path} if model_path else {})
        bundle = await asyncio.to_thread(open_bundle, config)
        loop = asyncio.get_running_loop()

        def on_done(order: Future[None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._reloaded, order, config, bundle)

        order = core.reload(bundle.new_executor, limits_of(bundle))
        self._reloads += 1
        order.add_done_callback(on_done)
        await asyncio.wrap_future(order)

    def _reloaded(self, order: Future[None], config: LLMEngineConfig, bundle: ModelBundle) -> None:
        self._reloads -= 1
        if not order.cancelled() and order.exception() is None:
            self.config, self._bundle = config, bundle

    def _started(self) -> RequestLoop:
        if self._core is None:
            raise EngineError(ErrorCode.UNAVAILABLE, "the engine is not running", hint="await engine.start()")
        return self._core

    def _new_core(self, bundle: ModelBundle) -> RequestLoop:
        config = self.config
        if config.decode_nodes + config.hybrid_nodes:
            raise invalid("an engine of several nodes is a DistributedRuntime, not an LLMEngine", "decode_nodes")
        return new_core(bundle, self._deliver)

    # -- requests -----------------------------------------------------------------------------------------------

    async def generate(
        self,
        prompt: str | list[int],
        *,
        sampling_params: SamplingParams | None = None,
        max_tokens: int | None = None,
        request_id: str | None = None,
    ) -> Response:
        """The whole answer to a prompt (text or token ids). Raises EngineError when it cannot be given."""
        request = new_request(prompt, sampling_params, max_tokens, request_id)
        return await self.complete(request)

    async def stream(
        self,
        prompt_or_request: str | list[int] | Request,
        *,
        sampling_params: SamplingParams | None = None,
        max_tokens: int | None = None,
        request_id: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events as they come: start, deltas, end. Leaving the loop early cancels the request.

        Raises EngineError before the first event when the request is refused; what fails later is in the end event.
        """
        if isinstance(prompt_or_request, Request):
            request = prompt_or_request
        else:
            request = new_request(prompt_or_request, sampling_params, max_tokens, request_id)
        state = await self._submit(request)
        async with aclosing(self._news(state)) as steps:
            async for news in steps:
                for each in news:
                    yield state.event(each)

    async def listen(
        self, request: Request, hear: Hear, over: Callable[[StreamEvent], None] | None = None
    ) -> Callable[[], None]:
        """`stream` without a task of its own, for who serves many: `hear` is called with what each step brought.

        It is called on the event loop, with the start event at once, and with an end event last; it must not wait.
        `over` is called with the end event before that.
        Returns a function that cancels what has not ended; then `hear` is not called any more. Raises EngineError when
        the request is refused.
        """
        state = await self._submit(request)
        state.hear, state.over = hear, over
        hear([state.start_event()])
        return lambda: self._release(state)

    async def complete(self, request: Request) -> Response:
        """The whole answer to a protocol request. Raises EngineError when it cannot be given.

        A request that `cancel` ended gives what there was, with finish_reason "cancelled".
        """
        response = await self._answer(request)
        if response.error is not None and response.finish_reason == "error":
            raise EngineError.from_protocol(response.error)
        return response

    async def execute(self, request: Request) -> Response:
        """The whole answer to a protocol request. Never raises for the request's own fault: see `Response.error`."""
        try:
            return await self._answer(request)
        except EngineError as error:
            return Response(
                request_id=request.request_id,
                trace_id=request.trace_id,
                finish_reason="error",
                error=error.to_protocol(),
            )

    def cancel(self, request_id: str) -> bool:
        """End a running request; its stream ends with `cancelled`. False when there is no such request."""
        seq_id = self._seq_ids.get(request_id)
        if seq_id is None or self._core is None:
            return False
        self._core.cancel(seq_id)
        return True

    async def embed(self, texts: list[str] | list[list[int]], *, adapter: str = "") -> list[list[float]]:
        """A vector of length 1 for each text (or its token ids), pooled as the configuration says.

        Raises EngineError for the first text that cannot be embedded.
        """
        requests = [new_request(text, adapter=adapter) for text in texts]
        at_once = asyncio.Semaphore(self.config.max_batch_size)
        tasks = [asyncio.create_task(self._embed(request, at_once)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _embed(self, request: Request, at_once: asyncio.Semaphore) -> list[float]:
        async with at_once:
            state = await self._submit(request, pooling=self.config.pooling_strategy)
            response = await self._response(state)
        if state.vector is None:
            raise EngineError.from_protocol(response.error) if response.error else AssertionError("no vector, no error")
        return state.vector

    async def _answer(self, request: Request) -> Response:
        return await self._response(await self._submit(request))

    async def _response(self, state: RequestState) -> Response:
        with self._attending(state) as tokenizer:
            while not state.done:
                for update in await state.updates.take():
                    state.take(update, tokenizer)
        return state.response(state.end_event(self.stats))

    async def _submit(self, request: Request, *, pooling: str = "") -> RequestState:
        core, bundle = self._running()
        self._refuse_surplus(request)
        state = await (take_in_text if pooling else take_in)(request, self.config, bundle)
        self._refuse_surplus(request)
        if bundle is not self._running()[1]:
            raise EngineError(ErrorCode.UNAVAILABLE, "the engine has gone over to another model")
        reason = core.refusal(len(state.prompt), request.kv_budget_tokens, state.params)
        if reason is not None:
            raise invalid(reason, "messages" if request.messages is not None else "prompt")
        state.comm_before = core.stats.comm
        state.seq_id = f"{request.request_id}/{next(self._submitted)}"
        core.submit(submission(state, bundle, pooling=pooling))
        self._requests[state.seq_id] = state
        self._seq_ids[request.request_id] = state.seq_id
        return state

    def _refuse_surplus(self, request: Request) -> None:
        """Raise when the queue is full or the id is taken. Asked again after encoding, which may take a while."""
        if len(self._requests) >= self.config.max_batch_size + self.config.max_waiting_requests:
            raise EngineError(
                ErrorCode.RESOURCE_EXHAUSTED,
                f"the engine is full: {len(self._requests)} requests are running or waiting; try again soon",
            )
        if request.request_id in self._seq_ids:
            raise invalid(f"a request with the id {request.request_id!r} is already running", "request_id")

    async def _news(self, state: RequestState) -> AsyncGenerator[list[News], None]:
        with self._attending(state) as tokenizer:
            yield [state.start_event()]
            while not state.done:
                news = state.news(await state.updates.take(), tokenizer, self.stats)
                if news:
                    yield news

    @contextmanager
    def _attending(self, state: RequestState) -> Iterator[Tokenizer]:
        """Somebody takes the request's updates; who leaves before its end cancels it."""
        core, bundle = self._core, self._bundle
        assert core is not None
        assert bundle is not None
        try:
            yield bundle.tokenizer
        finally:
            self._release(state)

    def _release(self, state: RequestState) -> None:
        """Forget a request; cancel it where it has not ended. Safe to call twice."""
        if self._requests.pop(state.seq_id, None) is None:
            return
        del self._seq_ids[state.request.request_id]
        if not state.done and self._core is not None:
            self._core.cancel(state.seq_id)

    def _deliver(self, updates: list[Update]) -> None:
        """On the step thread: hand a step's news to the event loop."""
        assert self._bell is not None
        self._bell.post(partial(self._dispatch, updates))

    def _dispatch(self, updates: list[Update]) -> None:
        heard: dict[str, list[Update]] = {}
        for update in updates:
            state = self._requests.get(update.seq_id)
            if state is None:
                continue
            if state.hear is None:
                state.updates.put(update)
            elif not state.several:
                self._tell(state, [update])
            else:
                heard.setdefault(update.seq_id, []).append(update)
        for seq_id, own in heard.items():
            self._tell(self._requests[seq_id], own)

    def _tell(self, state: RequestState, updates: list[Update]) -> None:
        """Give a listener its news."""
        bundle = self._bundle
        assert bundle is not None
        assert state.hear is not None
        try:
            news = state.news(updates, bundle.tokenizer, self.stats)
            if state.done:
                self._release(state)
                if state.over is not None and isinstance(end := news[-1], StreamEvent):
                    state.over(end)
            if news:
                state.hear(news)
        except Exception:  # one listener's fault must not reach the requests of others
            _LOG.exception("a listener of request %s failed", state.request.request_id)
            self._release(state)

    # -- text ---------------------------------------------------------------------------------------------------

    async def tokenize(self, request: Request) -> list[int]:
        """The token ids of a request's prompt or messages, as the model would read them. Raises EngineError."""
        _, bundle = self._running()
        return await encode(request, bundle)

    def detokenize(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids. Raises EngineError for an id outside the vocabulary."""
        _, bundle = self._running()
        bundle.check_ids(ids, "tokens")
        return bundle.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes tool calls. Raises EngineError (unavailable) before `start` has returned."""
        return self._running()[1].template.tool_format

    # -- state --------------------------------------------------------------------------------------------------

    async def health_check(self) -> bool:
        """Whether the engine can answer requests now. Never waits for a step."""
        return self._core is not None and self._core.healthy

    def get_info(self) -> dict[str, Any]:
        """What runs here: model, limits, device, cache. Empty values until `start` has returned."""
        stats = self.stats
        info: dict[str, Any] = {
            "engine_id": self.config.engine_id,
            "state": self._state(),
            "model": self.config.served_model_name or self.config.model_path,
            "backend": stats.device,
            "dtype": stats.dtype,
            "max_batch_size": self.config.max_batch_size,
            "kv_cache": {"blocks": stats.kv_blocks, "block_size": stats.block_size},
        }
        return info | (self._bundle.describe() if self._bundle is not None else {})

    def get_metrics(self) -> dict[str, float]:
        """Load and counters since start: requests, tokens, cache, preemptions."""
        stats = self.stats
        return stats.as_metrics() | {
            "requests_waiting": max(len(self._requests) - stats.running, 0),
            "uptime_s": monotonic() - self._started_at if self._core is not None else 0.0,
        }

    @property
    def stats(self) -> CoreStats:
        return self._core.stats if self._core is not None else CoreStats()

    def _running(self) -> tuple[RequestLoop, ModelBundle]:
        core, bundle = self._started(), self._bundle
        assert bundle is not None
        if core.healthy and not self._reloads:
            return core, bundle
        why = f"the engine is {self._state()}"
        if core.asleep:
            cause = "wake it with POST /wake_up, in Python with await engine.wake()"
            raise EngineError(ErrorCode.UNAVAILABLE, why, cause=cause, hint="await engine.wake()")
        raise EngineError(ErrorCode.UNAVAILABLE, why)

    def _state(self) -> str:
        if self._core is None or self._core.failure is not None:
            return "stopped"
        if self._core.asleep:
            return "asleep"
        if self._reloads:
            return "loading another model"
        return "ready" if self._core.healthy else "recovering"


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
