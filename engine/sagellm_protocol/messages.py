"""Requests, responses, stream events and their measurements (sageLLM Protocol v0.1)."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sagellm_protocol.errors import Error
from sagellm_protocol.lists import FirstFault
from sagellm_protocol.sampling import SamplingParams

FinishReason = Literal["stop", "length", "error", "cancelled"]


def _new_id() -> str:
    return uuid4().hex


class Message(BaseModel):
    """One turn of a conversation, in the form that chat templates take."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1)
    content: str | Annotated[list[dict[str, Any]], FirstFault()] | None = None


class Request(BaseModel):
    """A request to an engine: a prompt (text or token ids) or messages, exactly one of the two.

    `max_tokens` here wins over `sampling_params.max_tokens`. A higher `priority` is served earlier. `deadline_ms`
    counts from the moment the engine accepts the request. `kv_budget_tokens` bounds prompt plus output. `adapter` names
    a LoRA adapter of the engine; `tools` go to the chat template. `phase` is the protocol's, for engines that are one
    half of a pair; who runs a whole request, as `LLMEngine` and its runtimes do, does not look at it.
    """

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(default_factory=_new_id, min_length=1)
    trace_id: str = ""
    model: str = ""
    prompt: str | list[int] | None = None
    messages: list[Message] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool = False
    sampling_params: SamplingParams | None = None
    kv_budget_tokens: int | None = Field(default=None, ge=1)
    priority: int = 0
    deadline_ms: int | None = Field(default=None, ge=1)
    metadata: dict[str, Any] = Field(default_factory=dict)
    phase: Literal["prefill", "decode", "hybrid"] | None = None
    adapter: str = ""
    tools: list[dict[str, Any]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_input(self) -> Request:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class Timestamps(BaseModel):
    """Seconds on the engine's monotonic clock; differences mean something, absolute values do not."""

    model_config = ConfigDict(extra="forbid")

    queued_at: float = 0.0
    scheduled_at: float = 0.0
    executed_at: float = 0.0
    completed_at: float = 0.0


class Metrics(BaseModel):
    """Measurements of one request (a row of `metrics.json`).

    Times are milliseconds. `ttft_ms` is from acceptance to the first token; `tpot_ms` and `tbt_ms` are the mean time
    between the tokens after the first; `itl_list` holds every such gap. Fields of features that a request did not
    use stay zero; so do those that are not one request's but its engine's, `evict_count`, `evict_ms` (see
    `LLMEngine.get_metrics`) and `peak_mem_mb`, until somebody who measures the process fills them in.
    """

    model_config = ConfigDict(extra="forbid")

    ttft_ms: float = 0.0
    tbt_ms: float = 0.0
    tpot_ms: float = 0.0
    throughput_tps: float = 0.0
    peak_mem_mb: float = 0.0
    error_rate: float = 0.0
    kv_used_tokens: int = 0
    kv_used_bytes: int = 0
    prefix_hit_rate: float = 0.0
    evict_count: int = 0
    evict_ms: float = 0.0
    spec_accept_rate: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    kv_transfer_count: int = 0
    kv_transfer_bytes: int = 0
    kv_transfer_ms: float = 0.0
    comm_overhead_ms: float = 0.0
    allreduce_count: int = 0
    allgather_count: int = 0
    itl_list: list[float] = Field(default_factory=list)
    timestamps: Timestamps = Field(default_factory=Timestamps)


class TokenLogprob(BaseModel):
    """A chosen token with its log-probability and the likeliest tokens there: `top` their log-probabilities by token
    id, `top_tokens` their texts.
    """

    model_config = ConfigDict(extra="forbid")

    token_id: int
    token: str
    logprob: float
    top: dict[int, float] = Field(default_factory=dict)
    top_tokens: dict[int, str] = Field(default_factory=dict)


class Choice(BaseModel):
    """One of several answers to a request. `score` ranks them: the sum of log-probabilities over length, see
    `length_penalty`; 0 where nothing was ranked.
    """

    model_config = ConfigDict(extra="forbid")

    index: int
    output_text: str = ""
    output_tokens: list[int] = Field(default_factory=list)
    finish_reason: FinishReason = "stop"
    logprobs: list[TokenLogprob] | None = None
    score: float = 0.0


class Response(BaseModel):
    """The whole answer to a request. `output_tokens` are the token ids; `prompt_tokens` is a count.

    Where several answers were asked for (n, best_of, beams), `choices` holds them, best first, and the fields here are
    those of the first; otherwise it is empty. `prompt_logprobs`: one entry a prompt token but the first, if asked for.
    """

    model_config = ConfigDict(extra="forbid")

    request_id: str
    trace_id: str = ""
    output_text: str = ""
    output_tokens: list[int] = Field(default_factory=list)
    prompt_tokens: int = 0
    finish_reason: FinishReason = "stop"
    metrics: Metrics = Field(default_factory=Metrics)
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob] | None = None
    choices: list[Choice] = Field(default_factory=list)
    error: Error | None = None


class StreamEvent(BaseModel):
    """One event of a stream: `start`, then any number of `delta`, then exactly one `end`.

    A delta of a request with several answers says by `index` which one goes on.

    start: request_id, trace_id, engine_id, prompt_tokens (a count). delta: chunk (text; held back while a character or
    a stop string is incomplete), chunk_tokens (the ids of the tokens behind it), logprobs. end: output_text,
    output_tokens (ids), prompt_tokens, finish_reason, metrics, error.
    """

    model_config = ConfigDict(extra="forbid")

    event: Literal["start", "delta", "end"]
    request_id: str
    trace_id: str = ""
    engine_id: str = ""
    prompt_tokens: int = 0
    index: int = 0
    chunk: str = ""
    chunk_tokens: list[int] = Field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    output_text: str = ""
    output_tokens: list[int] = Field(default_factory=list)
    finish_reason: FinishReason | None = None
    metrics: Metrics | None = None
    prompt_logprobs: list[TokenLogprob] | None = None
    choices: list[Choice] = Field(default_factory=list)
    error: Error | None = None

    @property
    def content(self) -> str:
        """The text of a delta: another name for `chunk`."""
        return self.chunk
