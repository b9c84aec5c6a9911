"""The chunks of a streamed answer as bytes of server-sent events.

What is the same in every chunk of a choice is encoded once; a plain token then costs one small join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sagellm_core.errors import EngineError
from sagellm_core.request_state import Delta, News
from sagellm_core.server.shapes import Answer, chat_logprobs, completion_logprobs, engine_error, usage_object
from sagellm_core.text.tools import CallStart, Piece, Text
from sagellm_protocol.messages import StreamEvent, TokenLogprob

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
Numbered = tuple[int, Sequence[News]]
"""The number of a prompt, and news of it."""


def frame(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + encode(body) + b"\n\n"


class Chunks:
    """Events of all choices in, bytes out. After `failed` nothing more may follow, not even `[DONE]`."""

    __slots__ = (
        "_answer", "_cached_tokens", "_choices", "_common", "_completion_tokens", "_current", "_head", "_is_bare",
        "_per_prompt", "_prompt_tokens", "_silent", "_tail", "failed",
    )  # fmt: skip

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        kind = "chat.completion.chunk" if answer.is_chat else "text_completion"
        self._common = {"id": answer.id, "object": kind, "created": answer.created, "model": answer.model}
        self._head = b"data: " + encode(self._common)[:-1] + b',"choices":[{"index":'
        self._tail = b"}]}\n\n"
        if answer.include_usage and not answer.usage_in_chunks:
            self._tail = b'}],"usage":null}\n\n'
        self._per_prompt, self._silent, self._is_bare = answer.choices, answer.silent, not answer.usage_in_chunks
        self._choices: dict[int, _ChoiceChunks] = {}
        self._current: _ChoiceChunks | None = None
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens = 0
        self.failed = False

    def of(self, batch: Iterable[Numbered]) -> bytes:
        """What a batch of news has to say: the chunks of one write; empty for nothing."""
        out: list[bytes] = []
        for number, news in batch:
            for each in news:
                if isinstance(each, Delta):
                    self._delta(number, each, out)
                elif each.event == "start":
                    self._prompt_tokens += each.prompt_tokens
                elif each.error is not None:
                    return b"".join(out) + self.failure(EngineError.from_protocol(each.error))
                else:
                    self._end(number, each, out)
        return b"".join(out)

    def failure(self, error: EngineError) -> bytes:
        """The event that ends a stream which cannot go on."""
        self.failed = True
        return frame(engine_error(error)[1])

    def last(self) -> bytes:
        """The end of a stream that went well."""
        if not self._answer.include_usage:
            return DONE
        return frame({**self._common, "choices": [], "usage": self._usage()}) + DONE

    def _delta(self, number: int, delta: Delta, out: list[bytes]) -> None:
        if not self._silent:
            self._completion_tokens += len(delta.chunk_tokens)
        choice = self._choice(number * self._per_prompt + delta.index)
        if choice.is_plain and delta.logprobs is None and self._is_bare:
            if delta.chunk:
                out.append(choice.plain_head + encode(delta.chunk) + choice.plain_tail)
        else:
            self._write(choice, choice.delta(delta), out)
        if delta.finish_reason is not None:
            self._write(choice, choice.end(delta.finish_reason), out)

    def _end(self, number: int, event: StreamEvent, out: list[bytes]) -> None:
        """The end of a request: of all its choices that have not ended by themselves."""
        if event.metrics is not None:
            self._cached_tokens += round(event.metrics.prefix_hit_rate * event.prompt_tokens)
        reasons = {choice.index: choice.finish_reason for choice in event.choices}
        for index in range(self._answer.choices):
            choice = self._choice(number * self._answer.choices + index)
            if not choice.ended:
                self._write(choice, choice.end(reasons.get(index, event.finish_reason or "stop")), out)

    def _choice(self, index: int) -> _ChoiceChunks:
        current = self._current
        if current is not None and current.index == index:
            return current
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _ChoiceChunks(self._answer, index, self._head, self._tail)
        self._current = found
        return found

    def _write(self, choice: _ChoiceChunks, bodies: Sequence[bytes], out: list[bytes]) -> None:
        tail = self._tail
        if self._answer.usage_in_chunks:
            tail = b'}],"usage":' + encode(self._usage()) + b"}\n\n"
        for body in bodies:
            out += (choice.head, body, tail)

    def _usage(self) -> dict[str, Any]:
        return usage_object(self._prompt_tokens, self._completion_tokens, self._cached_tokens)


class _ChoiceChunks:
    """One choice: the inside of each of its chunks, after the index.

    `is_plain`: from now on a piece of text without log-probabilities is `plain_head`, the text, `plain_tail`.
    """

    __slots__ = (
        "_answer", "_echo", "_is_chat", "_opened", "_parser", "_shown", "ended", "head", "index", "is_plain",
        "plain_head", "plain_tail",
    )  # fmt: skip

    def __init__(self, answer: Answer, index: int, head: bytes, tail: bytes) -> None:
        self.index = index
        self.head = head + str(index).encode() + b","
        self.ended = False
        self.is_plain = False
        self._answer = answer
        self._is_chat = answer.is_chat
        self._parser = answer.parser()
        self._echo = answer.echo(index)
        self._opened = False
        self._shown = 0
        before, after = self._around(b"null")
        self.plain_head, self.plain_tail = self.head + before, after + tail

    def delta(self, delta: Delta) -> list[bytes]:
        """The chunks of a piece of the answer."""
        bodies = [] if self._opened else self._opening(delta.prompt_logprobs)
        if self._answer.silent:
            return bodies
        logprobs = None if delta.logprobs is None else self._logprobs(delta.logprobs)
        if self._parser is not None:
            return [*bodies, *self._pieces(self._parser.push(delta.chunk), logprobs)]
        if delta.chunk or logprobs is not None:
            bodies.append(self._plain(delta.chunk, logprobs))
        return bodies

    def end(self, reason: str) -> list[bytes]:
        """The last chunks: what was held back, and why it ended."""
        self.ended = True
        bodies = [] if self._opened else self._opening(None)
        if self._parser is not None:
            bodies += self._pieces(self._parser.finish(), None)
            reason = "tool_calls" if self._parser.called and reason == "stop" else reason
        if self._answer.silent:
            reason = "length"
        empty = b'"delta":{}' if self._is_chat else b'"text":""'
        bodies.append(empty + b',"logprobs":null,"finish_reason":' + encode(reason))
        return bodies

    def _opening(self, prompt: Sequence[TokenLogprob] | None) -> list[bytes]:
        """The first chunk, with the first token: until then a gateway may still try another engine."""
        self._opened = True
        self.is_plain = self._parser is None and not self._answer.silent
        if self._is_chat:
            return [b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null']
        if self._echo is None:
            return []
        logprobs = None
        if prompt is not None:
            logprobs = completion_logprobs([], self._echo, prompt)
            self._shown = len(self._echo.first) + sum(len(token.token) for token in prompt)
        return [self._plain(self._echo.text, logprobs)]

    def _plain(self, text: str, logprobs: dict[str, Any] | None) -> bytes:
        before, after = self._around(b"null" if logprobs is None else encode(logprobs))
        return before + encode(text) + after

    def _around(self, logprobs: bytes) -> tuple[bytes, bytes]:
        """What stands before and after a text."""
        after = b',"logprobs":' + logprobs + b',"finish_reason":null'
        return (b'"delta":{"content":', b"}" + after) if self._is_chat else (b'"text":', after)

    def _pieces(self, pieces: Sequence[Piece], logprobs: dict[str, Any] | None) -> list[bytes]:
        """Chunks of text and calls. Log-probabilities go with the first of them, or with an empty one."""
        bodies = []
        for piece in pieces:
            if isinstance(piece, Text):
                bodies.append(self._plain(piece.text, logprobs))
            else:
                encoded = b"null" if logprobs is None else encode(logprobs)
                delta = encode({"tool_calls": [_call_delta(piece)]})
                bodies.append(b'"delta":' + delta + b',"logprobs":' + encoded + b',"finish_reason":null')
            logprobs = None
        if logprobs is not None:
            bodies.append(self._plain("", logprobs))
        return bodies

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Offsets of completions count the characters of all tokens before."""
        if self._is_chat:
            return chat_logprobs(tokens)
        shaped = completion_logprobs(tokens, start=self._shown)
        self._shown += sum(len(token.token) for token in tokens)
        return shaped


def _call_delta(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, CallStart):
        function = {"name": piece.name, "arguments": ""}
        return {"index": piece.index, "id": piece.id, "type": "function", "function": function}
    assert not isinstance(piece, Text)
    return {"index": piece.index, "function": {"arguments": piece.text}}
