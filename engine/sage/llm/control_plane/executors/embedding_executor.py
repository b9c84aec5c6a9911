"""Carries out embedding requests: as they are where they fit, in parts where they hold more than an engine takes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from sage.llm.asgi import JSON_TYPE, ApiError
from sage.llm.control_plane.answers import Answer, read_answer
from sage.llm.control_plane.classifier import InferenceCall
from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator
from sage.llm.control_plane.upstream import Upstream

MAX_INPUTS = 2048  # OpenAI's limit, and the built-in embedding server's
MAX_PARTS = 16  # the whole answer is in memory at once: a body of millions of tiny inputs would fill it


class _Item(msgspec.Struct):
    """One vector of an answer, its numbers untouched."""

    index: int
    embedding: msgspec.Raw
    object: str = "embedding"


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Embeddings(msgspec.Struct):
    """An engine's answer."""

    data: list[_Item]
    model: str
    object: str = "list"
    usage: _Usage = msgspec.field(default_factory=_Usage)


@dataclass(frozen=True, slots=True)
class EmbeddingExecutor:
    """Sends embedding work to an engine; `max_inputs` is how many inputs the engine takes in one request."""

    coordinator: HttpExecutionCoordinator
    max_inputs: int = MAX_INPUTS

    async def execute(self, upstream: Upstream, call: InferenceCall, request_id: str) -> Answer:
        """Return the answer to a whole request, its items in the order of the inputs.

        The first part that is refused is the answer. Raises what `read_answer` and the coordinator's `open` raise.
        """
        body = call.body_for(upstream.local_name(call.model))
        parts = split_inputs(body, self.max_inputs)
        if len(parts) == 1:
            return await self._send(upstream, call.path, parts[0], request_id)
        answers = []
        for part in parts:
            answer = await self._send(upstream, call.path, part, request_id)
            if answer.status != 200:
                return answer
            answers.append(answer.body)
        return Answer(200, merge(answers), (JSON_TYPE,))

    async def _send(self, upstream: Upstream, path: str, body: bytes, request_id: str) -> Answer:
        """Send one part."""
        response = await self.coordinator.open(upstream, path, body, request_id)
        async with response:
            return await read_answer(response, upstream)


def split_inputs(body: bytes, limit: int) -> list[bytes]:
    """Return the request as requests of at most `limit` inputs each; one that fits comes back as it is.

    Raises ApiError 400 past `MAX_PARTS` of them.
    """
    if len(body) < 2 * limit:  # an input takes at least two bytes
        return [body]
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    try:
        inputs = msgspec.json.decode(fields["input"], type=list[msgspec.Raw])
    except msgspec.ValidationError:
        return [body]  # a single text
    if len(inputs) <= limit or bytes(inputs[0])[:1].isdigit():
        return [body]
    if len(inputs) > limit * MAX_PARTS:
        raise ApiError(
            400,
            f"`input` has {len(inputs)} items; at most {limit * MAX_PARTS} fit in one request.",
            param="input",
            code="too_many_inputs",
        )
    return [
        msgspec.json.encode({**fields, "input": inputs[start : start + limit]})
        for start in range(0, len(inputs), limit)
    ]


def merge(bodies: list[bytes]) -> bytes:
    """Return the answers of the parts as one answer: items renumbered, usage added up."""
    answers = [msgspec.json.decode(body, type=_Embeddings) for body in bodies]
    items: list[_Item] = []
    for answer in answers:
        offset = len(items)
        items += [_Item(offset + item.index, item.embedding) for item in answer.data]
    usage = _Usage(
        sum(answer.usage.prompt_tokens for answer in answers), sum(answer.usage.total_tokens for answer in answers)
    )
    return msgspec.json.encode(_Embeddings(items, answers[0].model, usage=usage))
