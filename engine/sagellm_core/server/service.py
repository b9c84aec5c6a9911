"""The engine behind the routes: loads in the background, counts what happens, runs several choices at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import EngineError
from sagellm_core.llm_engine import LLMEngine
from sagellm_core.models.locate import BUILTIN_NAMES, DEFAULT_MODEL
from sagellm_core.server.metrics import ServerMetrics
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Request, Response, StreamEvent

_LOG = logging.getLogger("sagellm_core.server")


class EngineService:
    """One engine with its state as seen from outside: starting, ready, unhealthy."""

    def __init__(self, config: LLMEngineConfig) -> None:
        self.config = config
        self.engine = LLMEngine(config)
        self.metrics = ServerMetrics(self.engine)
        self.failure: Exception | None = None
        self.on_failure: Callable[[Exception], None] | None = None
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
        if self.failure is not None:
            return 503, {"status": "unhealthy", "reason": str(self.failure), "model": self.model_id}
        if self._loading is None or self.loading:
            return 503, {"status": "starting", "reason": "the model is loading", "model": self.model_id}
        if not await self.engine.health_check():
            return 503, {"status": "unhealthy", "reason": "the engine does not run", "model": self.model_id}
        return 200, {"status": "ok", "model": self.model_id}

    async def events(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """One request's events, counted however it ends."""
        self._refuse_while_loading()
        end: StreamEvent | None = None
        started = False
        try:
            async with aclosing(self.engine.stream(request)) as events:
                async for event in events:
                    started = True
                    if event.event == "end":
                        end = event
                    yield event
        finally:
            if end is not None and end.finish_reason is not None:
                self.metrics.finished(end.finish_reason, end.metrics, len(end.output_tokens))
            else:
                self.metrics.finished("cancelled" if started else "error", None, 0)

    async def answers(self, requests: Sequence[Request]) -> list[Response]:
        """All choices of one HTTP request, side by side. Raises EngineError when one fails; the others then end."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(request)) for request in requests]
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    async def merged(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """Events of all choices as they come, each with its choice's index. Raises EngineError when one is refused."""
        if len(requests) == 1:
            async with aclosing(self.events(requests[0])) as events:
                async for event in events:
                    yield 0, event
            return
        queue: asyncio.Queue[tuple[int, StreamEvent | BaseException]] = asyncio.Queue()
        tasks = [asyncio.create_task(self._pump(index, request, queue)) for index, request in enumerate(requests)]
        open_choices = len(tasks)
        try:
            while open_choices:
                index, item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                open_choices -= item.event == "end"
                yield index, item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(
        self, index: int, request: Request, queue: asyncio.Queue[tuple[int, StreamEvent | BaseException]]
    ) -> None:
        try:
            async with aclosing(self.events(request)) as events:
                async for event in events:
                    queue.put_nowait((index, event))
        except Exception as error:  # whatever it is, the reader of the queue must not wait for ever
            queue.put_nowait((index, error))

    async def _answer(self, request: Request) -> Response:
        self._refuse_while_loading()
        try:
            response = await self.engine.complete(request)
        except BaseException as error:
            self.metrics.finished("error" if isinstance(error, EngineError) else "cancelled", None, 0)
            raise
        self.metrics.finished(response.finish_reason, response.metrics, len(response.output_tokens))
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
        info = self.engine.get_info()
        _LOG.info("ready: %s on %s, context %s tokens", self.model_id, info["backend"], info.get("max_model_len"))
        if self.model_id == DEFAULT_MODEL:
            _LOG.info(
                "%s is a small demonstration model: it knows SAGE and short contexts, little else. A bigger one:  "
                "sage llm serve --model FOLDER_OR_NAME",
                DEFAULT_MODEL,
            )

    def _refuse_while_loading(self) -> None:
        if self._loading is None or not self._loading.done():
            raise EngineError(ErrorCode.UNAVAILABLE, "the model is loading; try again in a moment")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a caller should see; a group of several says the same thing several times."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
