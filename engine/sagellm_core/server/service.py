"""The engine behind the routes: loads in the background, counts what happens, runs several prompts at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import EngineError
from sagellm_core.factory import new_engine
from sagellm_core.models.locate import BUILTIN_NAMES, DEFAULT_MODEL
from sagellm_core.request_state import Hear
from sagellm_core.server.health import Pulse
from sagellm_core.server.metrics import ServerMetrics
from sagellm_core.server.retry import DrainRate
from sagellm_core.server.shapes import Echo
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Request, Response, StreamEvent

_LOG = logging.getLogger("sagellm_core.server")


class EngineService:
    """One engine with its state as seen from outside: starting, ready, unhealthy."""

    def __init__(self, config: LLMEngineConfig) -> None:
        self.config = config
        self.engine = new_engine(config)
        self.metrics = ServerMetrics(self.engine, self.model_id)
        self.pulse = Pulse(self.engine)
        self.drain = DrainRate()
        self.failure: Exception | None = None
        self.on_failure: Callable[[Exception], None] | None = None
        self.on_ready: Callable[[], None] | None = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def model_id(self) -> str:
        if self.config.served_model_name:
            return self.config.served_model_name
        return DEFAULT_MODEL if self.config.model_path in BUILTIN_NAMES else self.config.model_path

    @property
    def loading(self) -> bool:
        """Whether the model is being loaded just now."""
        return self._loading is not None and not self._loading.done()

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """End what runs with `unavailable` and free the model."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        await self.engine.stop()

    async def health(self) -> tuple[int, dict[str, object]]:
        """HTTP status and body of /health."""
        status, reason = 200, ""
        if self.failure is not None:
            status, reason = 503, str(self.failure)
        elif self._loading is None or self.loading:
            return 503, {"status": "starting", "reason": "the model is loading", "model": self.model_id}
        elif self.engine.asleep:
            return 200, {"status": "asleep", "model": self.model_id}
        elif not await self.engine.health_check():
            status, reason = 503, "the engine does not run"
        else:
            reason = await self.pulse.fault() or ""
            status = 503 if reason else 200
        if status == 200:
            return 200, {"status": "ok", "model": self.model_id}
        return status, {"status": "unhealthy", "reason": reason, "model": self.model_id}

    async def listen(self, request: Request, hear: Hear) -> Callable[[], None]:
        """As the engine's `listen`; the request is counted however it ends."""
        self.refuse_while_loading()
        counted = False

        def count(reason: str, end: StreamEvent | None = None) -> None:
            nonlocal counted
            if not counted:
                counted = True
                tokens = 0 if end is None else len(end.output_tokens)
                self.metrics.finished(reason, None if end is None else end.metrics, tokens)
                self.drain.departed()

        try:
            leave = await self.engine.listen(request, hear, lambda end: count(end.finish_reason or "error", end))
        except BaseException:
            self.metrics.finished("error", None, 0)
            raise

        def left() -> None:
            leave()
            count("cancelled")

        return left

    async def answers(self, requests: Sequence[Request]) -> list[Response]:
        """The answers to all prompts of one HTTP request, side by side.

        Raises EngineError when one fails; the others then end.
        """
        if len(requests) == 1:
            return [await self._answer(requests[0])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(request)) for request in requests]
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    def addressed(self, request: Request) -> Request:
        """The request with the LoRA adapter that its model names, if it does."""
        if request.model not in self.config.lora_adapters:
            return request
        return request.model_copy(update={"adapter": request.model})

    async def embed(self, inputs: Sequence[str | list[int]], adapter: str = "") -> tuple[list[list[float]], int]:
        """A vector for each input, and the number of tokens read. Raises EngineError."""
        self.refuse_while_loading()
        tokens = [await self.engine.tokenize(Request(prompt=each)) for each in inputs]
        return await self.engine.embed(tokens, adapter=adapter), sum(map(len, tokens))

    async def echoes(self, requests: Sequence[Request]) -> list[Echo]:
        """What an answer that begins with its prompt needs of each. Raises EngineError."""
        self.refuse_while_loading()
        found = []
        for request in requests:
            ids = await self.engine.tokenize(request)
            text = request.prompt if isinstance(request.prompt, str) else self.engine.detokenize(ids)
            found.append(Echo(text, self.engine.detokenize(ids[:1]) if ids else ""))
        return found

    async def _answer(self, request: Request) -> Response:
        self.refuse_while_loading()
        try:
            response = await self.engine.complete(request)
        except BaseException as error:
            self.metrics.finished("error" if isinstance(error, EngineError) else "cancelled", None, 0)
            raise
        self.metrics.finished(response.finish_reason, response.metrics, len(response.output_tokens))
        self.drain.departed()
        return response

    async def _load(self) -> None:
        try:
            await self.engine.start()
        except Exception as error:  # the server says why it is not healthy, or ends with that
            self.failure = error
            _LOG.error("the model did not load: %s", error)
            if self.on_failure is not None:
                self.on_failure(error)
            return
        if self.on_ready is not None:
            self.on_ready()
        info = self.engine.get_info()
        _LOG.info("ready: %s on %s, context %s tokens", self.model_id, info["backend"], info.get("max_model_len"))
        if self.model_id == DEFAULT_MODEL:
            _LOG.info(
                "%s is a small demonstration model: it knows SAGE and short contexts, little else. A bigger one:  "
                "sage llm serve --model FOLDER_OR_NAME",
                DEFAULT_MODEL,
            )

    def refuse_while_loading(self) -> None:
        """Raise EngineError (unavailable) until the model is there."""
        if self._loading is None or not self._loading.done():
            raise EngineError(ErrorCode.UNAVAILABLE, "the model is loading; try again in a moment")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a caller should see; a group of several says the same thing several times."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
