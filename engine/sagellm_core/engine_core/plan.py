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
    """What a worker has to know about a sequence before its first step; sent once.

    `adapter` names a LoRA adapter. `pooling` (mean, cls, last): the sequence wants one vector, not tokens. `index` is
    its number among the answers to one request: with one seed, each draws from a stream of its own. `stop_ids` end the
    answer. `output`: tokens that were put out before; random streams, penalties and grammars go on after them. What a
    worker remembers of a sequence with the same id is replaced.
    """

    seq_id: str
    prompt: list[int]
    sampling: SamplingParams
    adapter: str = ""
    pooling: str = ""
    index: int = 0
    stop_ids: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Fork:
    """A searching sequence that begins as a copy of another: the same tokens as the parent before this step.

    Which token it goes on with is in its piece of a step. `index` is its number among its siblings.
    """

    parent: str
    child: str
    index: int


@dataclass(slots=True, frozen=True)
class SchedulerOutput:
    """One step. All lists are in batch order; the token lists are the sequences' pieces one after the other.

    token_ids, positions, slot_mapping: one entry a token; a slot is `block * block_size + offset`.
    query_lens: tokens of this step, a sequence. context_lens: tokens in the cache after this step, a sequence.
    block_tables: block ids, a sequence, at least `context_lens` slots long. samples: whether the step ends with a new
    token, a sequence (a prefill chunk before the last does not).

    Sparse, and empty for plain requests: `drafts`: proposed tokens by sequence id; they are the last tokens of that
    sequence's piece, and logits are wanted for the row before them and for each of them. `num_drafts`: how many tokens
    a worker that has a draft model may propose for the next step, as far as the sequence's block table has room.

    A worker carries these out first, in this order: `copies` (block source, block target; one after the other),
    `forks`, `finished`, `new`. A sequence may come again from an earlier position (its blocks were taken away, or its
    drafts refused): what a worker remembers by position is then overwritten.
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
    copies: list[tuple[int, int]] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    drafts: dict[str, list[int]] = field(default_factory=dict)
    num_drafts: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True)
class SampledToken:
    """A chosen token. `token_id` is -1 when the model gave no usable numbers (NaN).

    logprob and top (token id → log-probability) are there when the sequence asked for them.
    """

    token_id: int
    logprob: float | None = None
    top: dict[int, float] | None = None


@dataclass(slots=True, frozen=True)
class Candidates:
    """The likeliest next tokens of a row, best first: ids and log-probabilities; for beam and contrastive search.

    `similarity` (contrastive only) is the largest cosine of this row's hidden state with those of the tokens before it.
    """

    token_ids: list[int]
    logprobs: list[float]
    similarity: float = 0.0


@dataclass(slots=True, frozen=True)
class StepOutput:
    """What a step gave, by sequence id; sequences that gave nothing are absent.

    `tokens`: the new tokens, one, or several where drafts were accepted or a grammar left no choice about those after
    the first. `candidates`: for sequences that search instead of sampling. `drafts`: proposals of a draft model for the
    next step. `prompt_logprobs`: the log-probability of each prompt token of this step's piece, for sequences that
    asked. `vectors`: the pooled hidden state (normalised) of sequences that asked for it, when their prompt is through.
    `failures`: why a sequence whose token is -1 cannot go on, where it is not for want of usable numbers.
    """

    step: int
    tokens: dict[str, list[SampledToken]]
    candidates: dict[str, Candidates] = field(default_factory=dict)
    drafts: dict[str, list[int]] = field(default_factory=dict)
    prompt_logprobs: dict[str, list[SampledToken]] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
