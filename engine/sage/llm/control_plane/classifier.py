"""What kind of work a request is. Knows nothing of engines."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from sage.llm.asgi import ApiError

UpstreamKind = Literal["llm", "embedding"]


class RequestType(StrEnum):
    """The kinds of work that are scheduled differently."""

    LLM_CHAT = "llm_chat"
    LLM_GENERATE = "llm_generate"
    EMBEDDING = "embedding"
    TOKENS = "tokens"

    @property
    def upstream_kind(self) -> UpstreamKind:
        """The kind of engine that does this work. An LLM engine also embeds, with a model of its own."""
        return "embedding" if self is RequestType.EMBEDDING else "llm"


_BY_PATH = {
    "/v1/chat/completions": RequestType.LLM_CHAT,
    "/v1/completions": RequestType.LLM_GENERATE,
    "/v1/completions/stream": RequestType.LLM_GENERATE,
    "/v1/embeddings": RequestType.EMBEDDING,
    "/tokenize": RequestType.TOKENS,
    "/detokenize": RequestType.TOKENS,
}


_ABSENT = msgspec.Raw()


class _Fields(msgspec.Struct):
    """The fields that scheduling needs; everything else stays bytes."""

    model: str | None = None
    stream: bool | None = None
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_completion_tokens: msgspec.Raw = _ABSENT
    priority: msgspec.Raw = _ABSENT
    deadline_ms: msgspec.Raw = _ABSENT
    prompt_cache_key: msgspec.Raw = _ABSENT


class InferenceCall(msgspec.Struct, frozen=True):
    """A classified request: its type, the model it names ("" for none), whether it streams, and its bytes.

    `tokens` estimates prompt and answer. A higher `priority` is served earlier. `deadline_ms`: in how many milliseconds
    after its arrival an engine must have begun, None for whenever. `session` names a conversation ("" for none), and
    `prompt` holds the JSON of what the engine reads first.
    """

    type: RequestType
    path: str
    model: str
    stream: bool
    body: bytes
    tokens: int = 1
    priority: int = 0
    deadline_ms: float | None = None
    session: str = ""
    prompt: msgspec.Raw = _ABSENT

    def body_for(self, model: str) -> bytes:
        """Return the body for an engine that calls the model `model`: the client's own bytes where they do too."""
        if self.model == model:
            return self.body
        fields = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        return msgspec.json.encode(fields)


_DECODER = msgspec.json.Decoder(_Fields)
_REQUIRED = {RequestType.LLM_CHAT: "messages", RequestType.LLM_GENERATE: "prompt", RequestType.EMBEDDING: "input"}
_STREAMS = "/stream"

BYTES_PER_TOKEN = 4
USUAL_ANSWER = 256
_MOST_TOKENS = 1_000_000
_MOST_MILLISECONDS = 24 * 3600 * 1000.0


class RequestClassifier:
    """Tells chat, text generation and embedding apart, by the route and by a glance into the body."""

    def classify(self, path: str, body: bytes) -> InferenceCall:
        """Return the call; raises ApiError 400 for a body that is no JSON object or lacks what its route is about.

        Raises KeyError for a path that is no inference route.
        """
        kind = _BY_PATH[path]
        try:
            fields = _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(400, f"The request body cannot be read: {error}.", code="invalid_body") from error
        required = _REQUIRED.get(kind)
        if required is not None and bytes(getattr(fields, required)) in (b"", b"null"):
            raise ApiError(400, f"`{required}` is missing.", param=required, code="missing_field")
        model = "" if fields.model in (None, "default") else str(fields.model)
        prompt = fields.messages if kind is RequestType.LLM_CHAT else fields.prompt
        return InferenceCall(
            kind,
            path,
            model,
            bool(fields.stream) or path.endswith(_STREAMS),
            body,
            _tokens(kind, fields, len(body)),
            _whole(fields.priority) or 0,
            None if not fields.deadline_ms else deadline_ms(bytes(fields.deadline_ms)),
            _session(fields.prompt_cache_key),
            prompt,
        )


def deadline_ms(given: bytes) -> float | None:
    """Return the milliseconds that a header or a field states, None for `null`; raises ApiError 400 for anything else
    than a number from 0 to a day."""
    if given == b"null":
        return None
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST_MILLISECONDS:
        raise ApiError(
            400,
            "The deadline must be a number of milliseconds from 0 to 86400000.",
            param="deadline_ms",
            code="invalid_deadline",
        )
    return value


def _tokens(kind: RequestType, fields: _Fields, size: int) -> int:
    """Return an estimate of the tokens of a request and its answer, at least 1."""
    asked = size // BYTES_PER_TOKEN
    if kind in (RequestType.LLM_CHAT, RequestType.LLM_GENERATE):
        answer = _whole(fields.max_completion_tokens)
        if answer is None:
            answer = _whole(fields.max_tokens)
        asked += USUAL_ANSWER if answer is None else answer
    return max(1, min(_MOST_TOKENS, asked))


def _whole(raw: msgspec.Raw) -> int | None:
    """Return a whole number; None for what is none: whether that is an error is the engine's to say."""
    text = bytes(raw)
    digits = text[1:] if text[:1] == b"-" else text
    return int(text) if 0 < len(digits) <= 9 and digits.isdigit() else None


def _session(raw: msgspec.Raw) -> str:
    """Return a text, "" for anything else."""
    if not raw:
        return ""
    try:
        return msgspec.json.decode(raw, type=str)[:200]
    except msgspec.DecodeError:
        return ""
