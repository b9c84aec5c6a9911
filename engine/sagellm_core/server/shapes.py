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
from sagellm_core.server.chat_body import ToolUse
from sagellm_core.text.tools import CallArguments, CallStart, Piece, Text, ToolFormat, ToolParser
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Choice, Response, TokenLogprob

STATUS = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.NOT_IMPLEMENTED: 400,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.CANCELLED: 499,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 504,
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def error_object(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def engine_error(error: EngineError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an engine's error."""
    status = STATUS.get(error.error_code, 500)
    return status, error_object(status, str(error), param=error.param, code=error.error_code.value)


def usage_object(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


@dataclass(slots=True, frozen=True)
class Echo:
    """A prompt to be given back: its text, and its first token's, which has no log-probability."""

    text: str
    first: str


@dataclass(slots=True)
class Answer:
    """What all objects of one HTTP answer have in common.

    `choices` answers a prompt; choice `j` of prompt `i` has the index `i * choices + j`. `echoes` has one entry a
    prompt, or none. `silent`: the answers' own text is left out. `tools`: what the answers may call, in `form`.
    """

    kind: Kind
    model: str
    choices: int = 1
    echoes: Sequence[Echo] = ()
    silent: bool = False
    tools: ToolUse | None = None
    form: ToolFormat = ToolFormat.HERMES
    include_usage: bool = False
    usage_in_chunks: bool = False
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.is_chat else "cmpl-") + uuid4().hex

    @property
    def is_chat(self) -> bool:
        return self.kind == "chat.completion"

    def parser(self) -> ToolParser | None:
        """What finds the calls in one choice; None where none may come."""
        return None if self.tools is None else self.tools.parser(self.form)

    def echo(self, index: int) -> Echo | None:
        """What stands before the text of a choice."""
        return self.echoes[index // self.choices] if self.echoes else None

    def whole(self, responses: Sequence[Response]) -> dict[str, Any]:
        """The body of an answer that is not streamed; one response a prompt."""
        choices = []
        completion_tokens = 0
        for number, response in enumerate(responses):
            for choice in response.choices or [_only(response)]:
                index = number * self.choices + choice.index
                completion_tokens += 0 if self.silent else len(choice.output_tokens)
                choices.append(self._choice(index, choice, response.prompt_logprobs))
        usage = usage_object(
            sum(response.prompt_tokens for response in responses),
            completion_tokens,
            sum(round(response.metrics.prefix_hit_rate * response.prompt_tokens) for response in responses),
        )
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        }

    def _choice(self, index: int, choice: Choice, prompt: list[TokenLogprob] | None) -> dict[str, Any]:
        reason: str = choice.finish_reason
        if self.is_chat:
            message, called = self._message(choice.output_text)
            reason = "tool_calls" if called and reason == "stop" else reason
            logprobs = None if choice.logprobs is None else chat_logprobs(choice.logprobs)
            return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}
        echo = self.echo(index)
        text = "" if self.silent else choice.output_text
        tokens = None if choice.logprobs is None else ([] if self.silent else choice.logprobs)
        return {
            "index": index,
            "text": (echo.text if echo else "") + text,
            "logprobs": None if tokens is None else completion_logprobs(tokens, echo, prompt),
            "finish_reason": "length" if self.silent else reason,
        }

    def _message(self, text: str) -> tuple[dict[str, Any], bool]:
        """The assistant's message, and whether it calls tools."""
        parser = self.parser()
        if parser is None:
            return {"role": "assistant", "content": text, "refusal": None}, False
        content, calls = gathered([*parser.push(text), *parser.finish()])
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["content"] = content or None
            message["tool_calls"] = calls
        return message, bool(calls)


def gathered(pieces: Sequence[Piece]) -> tuple[str, list[dict[str, Any]]]:
    """The text and the calls of a whole answer."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        match piece:
            case Text(text):
                texts.append(text)
            case CallStart(_, call_id, name):
                calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}})
            case CallArguments(index, text):
                calls[index]["function"]["arguments"] += text
    return "".join(texts), calls


def _only(response: Response) -> Choice:
    return Choice(
        index=0,
        output_text=response.output_text,
        output_tokens=response.output_tokens,
        finish_reason=response.finish_reason,
        logprobs=response.logprobs,
    )


def completion_logprobs(
    tokens: Sequence[TokenLogprob],
    echo: Echo | None = None,
    prompt: Sequence[TokenLogprob] | None = None,
    start: int = 0,
) -> dict[str, Any]:
    """Log-probabilities as completions have them. `start`: the characters of the tokens before.

    With an echo, the tokens of the prompt come first, the very first without a log-probability.
    """
    texts = [token.token for token in tokens]
    chosen: list[float | None] = [token.logprob for token in tokens]
    tops: list[dict[str, float] | None] = [dict(_top(token)) for token in tokens]
    if echo is not None and prompt is not None:
        texts = [echo.first, *(token.token for token in prompt), *texts]
        chosen = [None, *(token.logprob for token in prompt), *chosen]
        tops = [None, *(dict(_top(token)) for token in prompt), *tops]
    offsets = list(accumulate((len(text) for text in texts), initial=start))
    return {"tokens": texts, "token_logprobs": chosen, "top_logprobs": tops, "text_offset": offsets[:-1]}


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities as chat completions have them."""
    return {"content": [_chat_logprob(token) for token in tokens], "refusal": None}


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
