"""The routes, one method each: what runs here, text from the model, what else the model can do."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sage.common import __version__
from sagellm_core.errors import not_implemented
from sagellm_core.server.bodies import CompletionBody
from sagellm_core.server.chat_body import ChatBody
from sagellm_core.server.chunks import Chunks
from sagellm_core.server.faults import json_answer
from sagellm_core.server.metrics import CONTENT_TYPE
from sagellm_core.server.reading import CLOSED_BY_CLIENT, as_invalid, read_body
from sagellm_core.server.service import EngineService
from sagellm_core.server.shapes import Answer, error_object
from sagellm_core.server.small_bodies import DetokenizeBody, EmbeddingBody, TokenizeBody
from sagellm_core.server.sse import EventStream, disconnected
from sagellm_protocol.messages import Request as EngineRequest

_T = TypeVar("_T")


class AboutRoutes:
    """What runs here and how it is."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def index(self, _: Request) -> Response:
        return json_answer({"name": "sage-engine", "version": __version__, "model": self._service.model_id})

    async def version(self, _: Request) -> Response:
        return json_answer({"version": __version__})

    async def health(self, _: Request) -> Response:
        status, body = await self._service.health()
        return json_answer(body, status)

    async def info(self, _: Request) -> Response:
        info = self._service.engine.get_info()
        return json_answer({**info, "model": self._service.model_id, "version": __version__})

    async def metrics(self, _: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, _: Request) -> Response:
        adapters = [self._model_object(name) for name in self._service.config.lora_adapters]
        return json_answer({"object": "list", "data": [self._model_object(self._service.model_id), *adapters]})

    async def model(self, request: Request) -> Response:
        wanted, own = request.path_params["model"], self._service.model_id
        if wanted in self._service.config.lora_adapters:
            return json_answer(self._model_object(wanted))
        if wanted not in (own, "default"):
            message = f"no model {wanted!r} here; this engine serves {own}"
            return json_answer(error_object(404, message, param="model", code="model_not_found"), 404)
        return json_answer(self._model_object(own))

    def _model_object(self, name: str) -> dict[str, Any]:
        own = self._service.model_id
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "sage",
            "max_model_len": self._service.engine.get_info().get("max_model_len"),
        } | ({} if name == own else {"parent": own})


class TextRoutes:
    """Completions and chat."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def completions(self, request: Request) -> Response | EventStream:
        return await self._answer(request, await read_body(request, CompletionBody))

    async def completions_stream(self, request: Request) -> Response | EventStream:
        return await self._answer(request, await read_body(request, CompletionBody, stream=True))

    async def chat_completions(self, request: Request) -> Response | EventStream:
        return await self._answer(request, await read_body(request, ChatBody))

    async def _answer(self, request: Request, body: CompletionBody | ChatBody) -> Response | EventStream:
        try:
            requests = body.requests()
        except ValidationError as error:
            raise as_invalid(error) from error
        self._service.refuse_while_loading()
        requests = [self._service.addressed(each) for each in requests]
        answer = await self._shape(body, requests)
        if body.stream:
            return await EventStream.open(self._service.listen, requests, Chunks(answer))
        responses = await _unless_gone(request, self._service.answers(requests))
        if responses is None:
            return Response(status_code=CLOSED_BY_CLIENT)
        return json_answer(answer.whole(responses))

    async def _shape(self, body: CompletionBody | ChatBody, requests: list[EngineRequest]) -> Answer:
        """What the answer will look like, as far as the request says it."""
        name = requests[0].adapter or self._service.model_id
        if isinstance(body, ChatBody):
            answer = Answer("chat.completion", name, tools=body.tool_use(), form=self._service.engine.tool_format)
        else:
            echoes = await self._service.echoes(requests) if body.echo else ()
            answer = Answer("text_completion", name, echoes=echoes, silent=body.max_tokens == 0)
        answer.choices = body.choices
        answer.include_usage, answer.usage_in_chunks = body.include_usage, body.usage_in_chunks
        return answer


class ModelRoutes:
    """What else a model can do: vectors, tokens."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def embeddings(self, request: Request) -> Response:
        """One vector an input, in order; `dimensions` is refused where it is not the model's own."""
        body = await read_body(request, EmbeddingBody)
        adapter = body.model if body.model in self._service.config.lora_adapters else ""
        result = await _unless_gone(request, self._service.embed(body.inputs, adapter))
        if result is None:
            return Response(status_code=CLOSED_BY_CLIENT)
        vectors, tokens = result
        if body.dimensions not in (None, len(vectors[0])):
            raise not_implemented(f"this model's vectors have {len(vectors[0])} numbers", "dimensions")
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = adapter or self._service.model_id
        return json_answer({"object": "list", "data": data, "model": name, "usage": usage})

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a prompt, or of messages through the chat template; the answer has vLLM's form."""
        body = await read_body(request, TokenizeBody)
        self._service.refuse_while_loading()
        engine = self._service.engine
        metadata = {"chat_template_kwargs": body.chat_template_kwargs}
        asked = EngineRequest(prompt=body.prompt, messages=body.messages, tools=body.tools or [], metadata=metadata)
        tokens = await engine.tokenize(asked)
        limit = engine.get_info().get("max_model_len")
        answer: dict[str, Any] = {"count": len(tokens), "max_model_len": limit, "tokens": tokens}
        if body.return_token_strs:
            answer["token_strs"] = [engine.detokenize([token]) for token in tokens]
        return json_answer(answer)

    async def detokenize(self, request: Request) -> Response:
        body = await read_body(request, DetokenizeBody)
        self._service.refuse_while_loading()
        text = await asyncio.to_thread(self._service.engine.detokenize, body.tokens)
        return json_answer({"prompt": text})


class RestRoutes:
    """Giving memory back while nobody asks; vLLM's names."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def sleep(self, _: Request) -> Response:
        self._service.refuse_while_loading()
        await self._service.engine.sleep()
        return json_answer({"is_sleeping": True})

    async def wake(self, _: Request) -> Response:
        self._service.refuse_while_loading()
        await self._service.engine.wake()
        return json_answer({"is_sleeping": False})

    async def is_sleeping(self, _: Request) -> Response:
        return json_answer({"is_sleeping": self._service.engine.asleep})


def _encoded(vector: list[float], form: str) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32."""
    if form == "float":
        return vector
    import numpy

    return base64.b64encode(numpy.asarray(vector, dtype="<f4").tobytes()).decode()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result of the work, or None when the client left first; then the work is cancelled."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
