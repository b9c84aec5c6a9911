"""The chunks of a streamed answer as bytes of server-sent events.

What is the same in every chunk of a choice is encoded once; a plain token then costs one small join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sagellm_core.errors import EngineError
from sagellm_core.server.shapes import Answer, chat_logprobs, completion_logprobs, engine_error, usage_object
from sagellm_core.text.tools import CallStart, Piece, Text
from sagellm_protocol.messages import StreamEvent, TokenLogprob

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
Numbered = tuple[int, StreamEvent]


def frame(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + encode(body) + b"\n\n"


class Chunks:
    """Events of all choices in, bytes out. After `failed` nothing more may follow, not even `[DONE]`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        kind = "chat.completion.chunk" if answer.is_chat else "text_completion"
        self._common = {"id": answer.id, "object": kind, "created": answer.created, "model": answer.model}
        self._head = b"data: " + encode(self._common)[:-1] + b',"choices":[{"index":'
        self._tail = b"}]}\n\n"
        if answer.include_usage and not answer.usage_in_chunks:
            self._tail = b'}],"usage":null}\n\n'
        self._choices: dict[int, _ChoiceChunks] = {}
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens = 0
        self.failed = False

    def of(self, events: Iterable[Numbered]) -> bytes:
        """What events have to say: the chunks of one write; empty for nothing. Prompts are numbered."""
        out: list[bytes] = []
        for number, event in events:
            if event.event == "start":
                self._prompt_tokens += event.prompt_tokens
            elif event.error is not None:
                return b"".join(out) + self.failure(EngineError.from_protocol(event.error))
            elif event.event == "end":
                self._end(number, event, out)
            else:
                self._delta(number, event, out)
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

    def _delta(self, number: int, event: StreamEvent, out: list[bytes]) -> None:
        if not self._answer.silent:
            self._completion_tokens += len(event.chunk_tokens)
        choice = self._choice(number * self._answer.choices + event.index)
        self._write(choice, choice.delta(event, opening=self._prompt_logprobs(event)), out)
        if event.finish_reason is not None:
            self._write(choice, choice.end(event.finish_reason), out)

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
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _ChoiceChunks(self._answer, index, self._head)
        return found

    @staticmethod
    def _prompt_logprobs(event: StreamEvent) -> Sequence[TokenLogprob] | None:
        return event.prompt_logprobs

    def _write(self, choice: _ChoiceChunks, bodies: Sequence[bytes], out: list[bytes]) -> None:
        tail = self._tail
        if self._answer.usage_in_chunks:
            tail = b'}],"usage":' + encode(self._usage()) + b"}\n\n"
        for body in bodies:
            out += (choice.head, body, tail)

    def _usage(self) -> dict[str, Any]:
        return usage_object(self._prompt_tokens, self._completion_tokens, self._cached_tokens)


class _ChoiceChunks:
    """One choice: the inside of each of its chunks, after the index."""

    def __init__(self, answer: Answer, index: int, head: bytes) -> None:
        self.head = head + str(index).encode() + b","
        self.ended = False
        self._answer = answer
        self._is_chat = answer.is_chat
        self._parser = answer.parser()
        self._echo = answer.echo(index)
        self._opened = False
        self._shown = 0

    def delta(self, event: StreamEvent, opening: Sequence[TokenLogprob] | None = None) -> list[bytes]:
        """The chunks of a piece of the answer."""
        bodies = [] if self._opened else self._opening(opening)
        if self._answer.silent:
            return bodies
        logprobs = None if event.logprobs is None else self._logprobs(event.logprobs)
        if self._parser is not None:
            return [*bodies, *self._pieces(self._parser.push(event.chunk), logprobs)]
        if event.chunk or logprobs is not None:
            bodies.append(self._plain(event.chunk, logprobs))
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
        encoded = b"null" if logprobs is None else encode(logprobs)
        if self._is_chat:
            return b'"delta":{"content":' + encode(text) + b'},"logprobs":' + encoded + b',"finish_reason":null'
        return b'"text":' + encode(text) + b',"logprobs":' + encoded + b',"finish_reason":null'

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
