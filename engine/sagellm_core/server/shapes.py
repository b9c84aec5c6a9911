"""OpenAI's response objects, built as plain dictionaries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any
from uuid import uuid4

from sagellm_core.errors import EngineError
from sagellm_core.server.bodies import Kind
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Response, StreamEvent, TokenLogprob

STATUS = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.NOT_IMPLEMENTED: 400,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.CANCELLED: 499,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 504,
}
_TYPES = {400: "invalid_request_error", 404: "not_found_error", 413: "invalid_request_error", 429: "rate_limit_error"}


def error_object(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def engine_error(error: EngineError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an engine's error."""
    status = STATUS.get(error.error_code, 500)
    return status, error_object(status, str(error), param=error.param, code=error.error_code.value)


@dataclass(slots=True)
class Answer:
    """What all objects of one HTTP answer have in common: id, time, model, kind."""

    kind: Kind
    model: str
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    _shown: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.is_chat else "cmpl-") + uuid4().hex

    @property
    def is_chat(self) -> bool:
        return self.kind == "chat.completion"

    def whole(self, responses: Sequence[Response], prompts: int) -> dict[str, Any]:
        """The body of an answer that is not streamed; `prompts` distinct prompts, whose tokens count once each."""
        choices = [self._choice(index, response) for index, response in enumerate(responses)]
        each = max(len(responses) // max(prompts, 1), 1)
        usage = usage_object(
            sum(response.prompt_tokens for response in responses[::each]),
            sum(len(response.output_tokens) for response in responses),
        )
        return self._object(self.kind, choices) | {"usage": usage}

    def opening(self, index: int) -> dict[str, Any] | None:
        """The first chunk of a choice: the role, in a chat."""
        if not self.is_chat:
            return None
        return self._chunk({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})

    def chunk(self, index: int, event: StreamEvent) -> dict[str, Any]:
        """A chunk for a delta event."""
        logprobs = self._logprobs(index, event.logprobs)
        if self.is_chat:
            choice = {"index": index, "delta": {"content": event.chunk}, "logprobs": logprobs, "finish_reason": None}
        else:
            choice = {"index": index, "text": event.chunk, "logprobs": logprobs, "finish_reason": None}
        return self._chunk(choice)

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """The last chunk of a choice: why it ended."""
        body: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": "", "logprobs": None}
        return self._chunk({"index": index, **body, "finish_reason": finish_reason})

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        return self._object(self._chunk_kind, []) | {"usage": usage_object(prompt_tokens, completion_tokens)}

    def _choice(self, index: int, response: Response) -> dict[str, Any]:
        logprobs = self._logprobs(index, response.logprobs)
        if self.is_chat:
            content: dict[str, Any] = {"message": {"role": "assistant", "content": response.output_text}}
        else:
            content = {"text": response.output_text}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": response.finish_reason}

    def _logprobs(self, index: int, tokens: list[TokenLogprob] | None) -> dict[str, Any] | None:
        """Log-probabilities of a choice, or of its next piece; offsets count the characters of the tokens before."""
        if tokens is None:
            return None
        if self.is_chat:
            return {"content": [_chat_logprob(token) for token in tokens]}
        ends = list(accumulate((len(token.token) for token in tokens), initial=self._shown.get(index, 0)))
        self._shown[index] = ends.pop()
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(_top(token)) for token in tokens],
            "text_offset": ends,
        }

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._object(self._chunk_kind, [choice])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def usage_object(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _chat_logprob(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.token.encode()),
        "top_logprobs": [
            {"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in _top(token)
        ],
    }


def _top(token: TokenLogprob) -> list[tuple[str, float]]:
    return [(token.top_tokens.get(token_id, ""), value) for token_id, value in token.top.items()]
