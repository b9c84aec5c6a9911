"""How the next token is chosen.

A field that the caller never set is open: the engine fills it from its own configuration, then from the model's
`generation_config.json`, then from the default written here. `model_fields_set` tells which ones the caller set.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sagellm_protocol.lists import FirstFault


class DecodingStrategy(StrEnum):
    """Families of decoding; an engine refuses those that it does not have with `not_implemented`."""

    GREEDY = "greedy"
    SAMPLING = "sampling"
    BEAM_SEARCH = "beam_search"
    CONTRASTIVE = "contrastive"
    SPECULATIVE = "speculative"


def _as_list(value: object) -> object:
    """`stop="x"` means `stop=["x"]`; `None` means none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | int) else value


Stops = Annotated[list[Annotated[str, Field(min_length=1)]], FirstFault(), BeforeValidator(_as_list)]
StopIds = Annotated[list[Annotated[int, Field(ge=0)]], FirstFault(), BeforeValidator(_as_list)]

TokenId = Annotated[int, Field(ge=0)]
Bias = Annotated[float, Field(ge=-1e30, le=1e30)]


class Grammar(BaseModel):
    """What an answer must look like: `text` is a JSON schema (JSON text), a regular expression or an EBNF grammar (GBNF
    or Lark); for `json_object`, any JSON object, it is empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["json_schema", "json_object", "regex", "ebnf"]
    text: str = ""


class SamplingParams(BaseModel):
    """Sampling parameters of one request; out-of-range values raise pydantic's `ValidationError`.

    `strategy` decides when it is set. When it is not, a positive `temperature` means sampling and `num_beams > 1`
    means beam search. `top_k=0` and `top_p=1.0` switch the filters off. `seed` makes the draws of a request
    reproducible whatever else runs beside it. `logprobs=n` also returns the `n` likeliest tokens at every step,
    `prompt_logprobs=n` those of every prompt token. `n` answers are given, the best of `best_of` by mean
    log-probability. Before `min_tokens` tokens, nothing that would end the answer is chosen. `logit_bias` adds to
    logits by token id.
    """

    model_config = ConfigDict(extra="forbid")

    strategy: DecodingStrategy = DecodingStrategy.GREEDY
    temperature: float = Field(default=0.0, ge=0.0, le=100.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100.0)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    length_penalty: float = Field(default=1.0, ge=-10.0, le=10.0)
    early_stopping: bool = False
    penalty_alpha: float = Field(default=0.6, ge=0.0, le=1.0)
    num_beams: int = Field(default=1, ge=1, le=64)
    n: int = Field(default=1, ge=1, le=128)
    n_speculative_tokens: int = Field(default=0, ge=0, le=64)
    max_tokens: int = Field(default=128, ge=1)
    min_tokens: int = Field(default=0, ge=0)
    stop: Stops = Field(default_factory=list, max_length=16)
    stop_token_ids: StopIds = Field(default_factory=list, max_length=1024)
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = Field(default=None, ge=0, le=20)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)
    logit_bias: dict[TokenId, Bias] = Field(default_factory=dict, max_length=1024)
    best_of: int | None = Field(default=None, ge=1, le=128)
    grammar: Grammar | None = None
    seed: int | None = None
