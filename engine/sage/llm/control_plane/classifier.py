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


class InferenceCall(msgspec.Struct, frozen=True):
    """A classified request: its type, the model it names ("" for none), whether it streams, and its bytes."""

    type: RequestType
    path: str
    model: str
    stream: bool
    body: bytes

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
        return InferenceCall(kind, path, model, bool(fields.stream) or path.endswith(_STREAMS), body)
