"""What the OpenAI routes accept, and how it becomes protocol requests.

Unknown fields are passed over, as OpenAI's own servers do; fields that would change the answer and that this engine
does not have are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from sagellm_core.errors import invalid, not_implemented
from sagellm_protocol.lists import FirstFault
from sagellm_protocol.messages import Message, Request
from sagellm_protocol.sampling import SamplingParams

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "skip_special_tokens",
    "seed",
)
_MOST_CHOICES = 128
_MOST_MESSAGES = 8192
_MOST_TOKEN_IDS = 1 << 20


def _checked_prompt(value: object) -> object:
    """A prompt as it came, or ValueError. One message, and one pass over what may be a million token ids."""
    if isinstance(value, str) or _are_token_ids(value):
        return value
    several = value if isinstance(value, list) and len(value) <= _MOST_TOKEN_IDS else [None]
    if all(isinstance(item, str) for item in several) or all(_are_token_ids(item) for item in several):
        return value
    raise ValueError(f"must be a text, a list of up to {_MOST_TOKEN_IDS} token ids, or a list of several of either")


def _are_token_ids(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_TOKEN_IDS and all(type(item) is int for item in value)


Prompt = Annotated[str | list[int] | list[str] | list[list[int]], PlainValidator(_checked_prompt)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class Body(BaseModel):
    """Fields that completions and chat completions share; beyond OpenAI's: top_k, min_p, and those after `user`.

    Lists fail at their first wrong item: an error for each of a million items would cost gigabytes.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = ""
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = Field(default=None, ge=1, le=_MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], FirstFault()] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    user: str | None = None
    stop_token_ids: Annotated[list[int], FirstFault()] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    priority: int = 0
    deadline_ms: int | None = Field(default=None, ge=1)
    request_id: str | None = Field(default=None, min_length=1)
    num_beams: int | None = None
    logit_bias: Any = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, logprobs: int | None, choice: int) -> SamplingParams:
        """Only what the caller set, so that the engine's and the model's defaults fill the rest."""
        values: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        if choice and self.seed is not None:
            values["seed"] = self.seed + choice
        if logprobs is not None:
            values["logprobs"] = logprobs
        if self.num_beams is not None:
            values["num_beams"] = self.num_beams
        return SamplingParams.model_validate(values)

    def _request(self, index: int, logprobs: int | None, **source: Any) -> Request:
        base = self.request_id or uuid4().hex
        return Request(
            request_id=base if index == 0 else f"{base}-{index}",
            model=self.model,
            max_tokens=self.max_tokens,
            stream=bool(self.stream),
            sampling_params=self.sampling(logprobs, index % (self.n or 1)),
            priority=self.priority,
            deadline_ms=self.deadline_ms,
            **source,
        )


class CompletionBody(Body):
    """POST /v1/completions: a prompt as text or token ids, or several of either."""

    prompt: Prompt
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    best_of: int | None = None
    suffix: str | None = None

    def requests(self) -> list[Request]:
        """One request a choice: `n` for every prompt, in order."""
        _refuse("suffix", self.suffix)
        _refuse("echo", self.echo)
        _refuse("logit_bias", self.logit_bias)
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise not_implemented("best_of other than n is not supported", "best_of")
        prompts: list[Any] = [self.prompt]
        if isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int):
            prompts = list(self.prompt)
        choices = [prompt for prompt in prompts for _ in range(self.n or 1)]
        if len(choices) > _MOST_CHOICES:
            raise invalid(f"{len(choices)} choices in one request; at most {_MOST_CHOICES}", "prompt")
        return [self._request(index, self.logprobs, prompt=prompt) for index, prompt in enumerate(choices)]


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], FirstFault()] = Field(min_length=1, max_length=_MOST_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Annotated[list[dict[str, Any]], FirstFault()] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    def requests(self) -> list[Request]:
        """One request a choice."""
        _refuse("logit_bias", self.logit_bias)
        if self.tools and self.tool_choice != "none":
            raise not_implemented("this engine does not call tools yet; leave tools out", "tools")
        if self.response_format is not None and self.response_format.get("type", "text") != "text":
            raise not_implemented("this engine answers in plain text: response_format text", "response_format")
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        metadata = {"chat_template_kwargs": self.chat_template_kwargs} if self.chat_template_kwargs else {}
        return [
            self._request(index, logprobs, messages=self.messages, metadata=metadata) for index in range(self.n or 1)
        ]


Kind = Literal["text_completion", "chat.completion"]


def _refuse(name: str, value: object) -> None:
    if value:
        raise not_implemented(f"this engine does not support {name} yet", name)
