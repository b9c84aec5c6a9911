"""Plain data between scheduler and executor: what a step computes, and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sagellm_protocol.sampling import SamplingParams


class BatchType(StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


@dataclass(slots=True, frozen=True)
class NewSequence:
    """What a worker has to know about a sequence before its first step; sent once."""

    seq_id: str
    prompt: list[int]
    sampling: SamplingParams


@dataclass(slots=True, frozen=True)
class SchedulerOutput:
    """One step. All lists are in batch order; the token lists are the sequences' pieces one after the other.

    token_ids, positions, slot_mapping: one entry a token; a slot is `block * block_size + offset`.
    query_lens: tokens of this step, a sequence. context_lens: tokens in the cache after this step, a sequence.
    block_tables: block ids, a sequence, at least `context_lens` slots long. samples: whether the step ends with a new
    token, a sequence (a prefill chunk before the last does not).
    """

    step: int
    batch_type: BatchType
    seq_ids: list[str]
    token_ids: list[int]
    positions: list[int]
    slot_mapping: list[int]
    query_lens: list[int]
    context_lens: list[int]
    block_tables: list[list[int]]
    samples: list[bool]
    new: list[NewSequence] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True, frozen=True)
class SampledToken:
    """A chosen token. `token_id` is -1 when the model gave no usable numbers (NaN).

    logprob and top (token id → log-probability) are there when the sequence asked for them.
    """

    token_id: int
    logprob: float | None = None
    top: dict[int, float] | None = None


@dataclass(slots=True, frozen=True)
class StepOutput:
    """The new tokens of a step by sequence id; sequences that did not sample are absent."""

    step: int
    tokens: dict[str, SampledToken]
