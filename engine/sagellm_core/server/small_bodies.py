"""What the routes around generation accept: embeddings, tokenize, detokenize."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from sagellm_core.server.bodies import are_token_ids
from sagellm_core.server.chat_body import Tools
from sagellm_protocol.lists import FirstFault
from sagellm_protocol.messages import Message

MOST_INPUTS = 2048


def _checked_input(value: object) -> object:
    """An input as it came, or ValueError."""
    if isinstance(value, str) or (are_token_ids(value) and value):
        return value
    several = value if isinstance(value, list) and 0 < len(value) <= MOST_INPUTS else [None]
    if all(isinstance(item, str) for item in several) or all(are_token_ids(item) and item for item in several):
        return value
    raise ValueError(f"must be a text, a list of token ids, or a list of up to {MOST_INPUTS} of either, none empty")


def _checked_ids(value: object) -> object:
    if not are_token_ids(value):
        raise ValueError("must be a list of token ids")
    return value


class EmbeddingBody(BaseModel):
    """POST /v1/embeddings."""

    model_config = ConfigDict(extra="ignore")

    input: Annotated[str | list[int] | list[str] | list[list[int]], PlainValidator(_checked_input)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    @property
    def inputs(self) -> list[Any]:
        """Each input by itself."""
        several = isinstance(self.input, list) and not isinstance(self.input[0], int)
        return list(self.input) if several else [self.input]

    @model_validator(mode="after")
    def _texts(self) -> Self:
        if "" in self.inputs:
            raise ValueError("input must not be an empty text")
        return self


class TokenizeBody(BaseModel):
    """POST /tokenize, as vLLM has it: a prompt, or messages through the chat template."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = ""
    prompt: str | None = None
    messages: Annotated[list[Message], FirstFault()] | None = Field(default=None, min_length=1)
    tools: Tools = None
    return_token_strs: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = ""
    tokens: Annotated[list[int], PlainValidator(_checked_ids)]
