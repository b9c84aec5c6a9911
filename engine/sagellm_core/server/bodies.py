"""What the completion route accepts, what it shares with chat, and how both become protocol requests.

Unknown fields are passed over, as OpenAI's own servers do; fields that would change the answer and that this engine
does not have are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from sagellm_core.errors import invalid, not_implemented
from sagellm_core.server.constraints import constraint_of
from sagellm_protocol.lists import FirstFault
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "length_penalty",
    "early_stopping",
    "penalty_alpha",
    "num_beams",
    "n_speculative_tokens",
    "strategy",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "logit_bias",
    "prompt_logprobs",
    "skip_special_tokens",
    "seed",
)
MOST_CHOICES = 128
_MOST_TOKEN_IDS = 1 << 20
_MOST_BIASES = 1024
_REFUSED = ("audio", "moderation", "web_search_options")


def _checked_prompt(value: object) -> object:
    """A prompt as it came, or ValueError. One message, and one pass over what may be a million token ids."""
    if isinstance(value, str) or are_token_ids(value):
        return value
    several = value if isinstance(value, list) and len(value) <= _MOST_TOKEN_IDS else [None]
    if all(isinstance(item, str) for item in several) or all(are_token_ids(item) for item in several):
        return value
    raise ValueError(f"must be a text, a list of up to {_MOST_TOKEN_IDS} token ids, or a list of several of either")


def are_token_ids(value: object) -> bool:
    """Whether this is a list of whole numbers, not too long."""
    return isinstance(value, list) and len(value) <= _MOST_TOKEN_IDS and set(map(type, value)) <= {int}


def _checked_bias(value: object) -> object:
    """Biases by token id, from -100 to 100, or ValueError."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _MOST_BIASES:
        raise ValueError(f"must be an object of up to {_MOST_BIASES} biases by token id")
    for key, bias in value.items():
        if not str(key).isdecimal() or type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise ValueError(f"{str(key)[:20]!r}: must be a token id with a number from -100 to 100")
    return {int(key): float(bias) for key, bias in value.items()}


Prompt = Annotated[str | list[int] | list[str] | list[list[int]], PlainValidator(_checked_prompt)]
Bias = Annotated[dict[int, float] | None, PlainValidator(_checked_bias)]


class StreamOptions(BaseModel):
    """`include_usage`: a last chunk with the usage; `continuous_usage_stats` (vLLM's): the usage so far in each."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Body(BaseModel):
    """Fields that completions and chat completions share; beyond OpenAI's: top_k, min_p, and those after `user`.

    Lists fail at their first wrong item: an error for each of a million items would cost gigabytes.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str = ""
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], FirstFault()] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Bias = None
    seed: int | None = None
    user: str | None = None
    repetition_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    penalty_alpha: float | None = None
    num_beams: int | None = None
    n_speculative_tokens: int | None = None
    strategy: str | None = None
    stop_token_ids: Annotated[list[int], FirstFault()] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool | None = None
    priority: int = 0
    deadline_ms: int | None = Field(default=None, ge=1)
    request_id: str | None = Field(default=None, min_length=1, max_length=256)
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], FirstFault()] | None = None
    guided_grammar: str | None = None
    audio: Any = None
    moderation: Any = None
    web_search_options: Any = None

    @model_validator(mode="after")
    def _options_of_streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def usage_in_chunks(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def sampling(self, **more: Any) -> SamplingParams:
        """Only what the caller set, so that the engine's and the model's defaults fill the rest; `more` wins."""
        values: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        if self.choices > 1:
            values["n"] = self.n
        constraint = constraint_of(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        if constraint is not None:
            values["grammar"] = constraint
        values |= {name: value for name, value in more.items() if value is not None}
        return SamplingParams.model_validate(values)

    def _request(self, index: int, params: SamplingParams, **source: Any) -> Request:
        base = self.request_id or uuid4().hex
        return Request(
            request_id=base if index == 0 else f"{base}-{index}",
            model=self.model,
            max_tokens=None if self.max_tokens is None else max(self.max_tokens, 1),
            stream=bool(self.stream),
            sampling_params=params,
            priority=self.priority,
            deadline_ms=self.deadline_ms,
            **source,
        )

    def _refuse_unknown(self) -> None:
        for name in _REFUSED:
            if getattr(self, name):
                raise not_implemented(f"this engine does not support {name}", name)


class CompletionBody(Body):
    """POST /v1/completions: a prompt as text or token ids, or several of either.

    `max_tokens=0` gives no text; with `echo` and `logprobs` that is how a prompt is scored.
    """

    prompt: Prompt
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    best_of: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    suffix: str | None = None

    @property
    def prompts(self) -> list[Any]:
        """Each prompt by itself."""
        several = isinstance(self.prompt, list) and bool(self.prompt) and not isinstance(self.prompt[0], int)
        return list(self.prompt) if several else [self.prompt]

    def requests(self) -> list[Request]:
        """One request a prompt, in order. Raises EngineError, or ValidationError of the sampling parameters."""
        self._refuse_unknown()
        if self.suffix:
            raise not_implemented("this engine does not support suffix: it writes what follows a prompt", "suffix")
        prompts = self.prompts
        if len(prompts) * self.choices > MOST_CHOICES:
            raise invalid(
                f"{len(prompts) * self.choices} choices in one request; at most {MOST_CHOICES}",
                "prompt" if len(prompts) > 1 else "n",
            )
        wants_prompt = self.echo and self.logprobs is not None
        params = self.sampling(
            logprobs=self.logprobs,
            best_of=self._best_of(),
            prompt_logprobs=self.logprobs if wants_prompt else None,
        )
        return [self._request(index, params, prompt=prompt) for index, prompt in enumerate(prompts)]

    def _best_of(self) -> int | None:
        """The number of candidates where it is more than the number of choices."""
        if self.best_of is None or self.best_of == self.choices:
            return None
        if self.best_of < self.choices:
            raise invalid(f"best_of must be at least n ({self.choices}), not {self.best_of}", "best_of")
        if self.stream:
            raise invalid("the best of several answers is known at the end: best_of cannot be streamed", "best_of")
        return self.best_of


Kind = Literal["text_completion", "chat.completion"]
