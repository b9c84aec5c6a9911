"""The body of `/v1/embeddings`: read, checked, answered. Knows nothing of sockets or batches."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sage.llm.asgi import ApiError


class EmbeddingRequest(msgspec.Struct):
    """The fields of OpenAI's request that matter here."""

    input: Any = None
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_DECODER = msgspec.json.Decoder(EmbeddingRequest)


def decode(body: bytes) -> EmbeddingRequest:
    """Return the request; raises ApiError 400 where it is no JSON object or a field has the wrong type."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"The request body cannot be read: {error}.", code="invalid_body") from error


def texts_of(request: EmbeddingRequest, limit: int) -> list[str]:
    """Return the input texts; raises ApiError 400 for token ids, for nothing at all, and past `limit` inputs."""
    given = request.input
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise _refusal("`input` must be a text or a non-empty list of texts.")
    if len(given) > limit:
        raise _refusal(f"`input` has {len(given)} items; at most {limit} fit in one request.", "too_many_inputs")
    if any(isinstance(item, int | list) for item in given):
        raise _refusal(
            "`input` holds token ids; this server takes texts. With langchain-openai set "
            "check_embedding_ctx_length=False.",
            "token_input_unsupported",
        )
    for position, item in enumerate(given):
        if not isinstance(item, str):
            raise _refusal(f"`input[{position}]` is not a text.")
    return given


def check_dimensions(request: EmbeddingRequest, dim: int) -> None:
    """Raise ApiError 400 where the client asks for another vector length than the model has."""
    if request.dimensions is not None and request.dimensions != dim:
        raise ApiError(400, f"This model has {dim} dimensions and no others.", param="dimensions")


def encode(request: EmbeddingRequest, model: str, vectors: NDArray[np.float32], tokens: int) -> bytes:
    """Return the answer's JSON; floats carry eight decimals, base64 is little-endian float32."""
    embeddings: list[Any]
    if request.encoding_format == "base64":
        packed = vectors.astype("<f4")
        embeddings = [base64.b64encode(row.tobytes()).decode() for row in packed]
    else:
        embeddings = np.round(vectors.astype(np.float64), 8).tolist()
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": embedding}
                for index, embedding in enumerate(embeddings)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _refusal(message: str, code: str = "invalid_input") -> ApiError:
    """Return the refusal of an input."""
    return ApiError(400, message, param="input", code=code)
