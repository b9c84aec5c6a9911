"""What the OpenAI routes accept, and how it becomes protocol requests.

Unknown fields are passed over, as OpenAI's own servers do; fields that would change the answer and that this engine
does not have are refused by name.
"""

from __future__ import annotations

from typing import Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sagellm_core.errors import invalid, not_implemented
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


class StreamOptions(BaseModel):
    include_usage: bool = False


class Body(BaseModel):
    """Fields that completions and chat completions share; beyond OpenAI's: top_k, min_p, and those after `user`."""

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
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    user: str | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    priority: int = 0
    deadline_ms: int | None = Field(default=None, ge=1)
    request_id: str | None = Field(default=None, min_length=1)
    num_beams: int | None = None
    logit_bias: dict[str, float] | None = None

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

    prompt: str | list[int] | list[str] | list[list[int]]
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

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
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
