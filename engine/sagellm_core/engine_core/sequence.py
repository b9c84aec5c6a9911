"""One sequence on its way through the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sagellm_core.engine_core.plan import SampledToken
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams

if TYPE_CHECKING:
    from sagellm_core.engine_core.drafts import Drafter
    from sagellm_core.engine_core.groups import Group


class SequenceStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens known so far, how many of them have their keys and values in the cache, and where.

    `tokens` is prompt plus output. `num_computed` counts the leading tokens whose KV is in `blocks`; a preempted
    sequence falls back to 0 and keeps its output. `max_total` bounds `len(tokens)`. `index` is the number of the answer
    that it works on, `rank` its place in every queue: the more urgent first, then the earlier.

    `root` begins its hash chain. With `reads_prefix` off, its prompt goes through the model, cached or not. `drafts`
    are proposed tokens that the step at hand checks. `num_newest`: of the tokens that the last step gave, how many were
    not computed in it. `is_known`: the workers have been told of it.
    """

    seq_id: str
    tokens: list[int]
    max_total: int
    group: Group = field(repr=False)
    sampling: SamplingParams
    rank: tuple[int, int, int]
    stop_ids: frozenset[int] = frozenset()
    num_prompt: int = 0
    index: int = 0
    root: bytes = b""
    adapter: str = ""
    pooling: str = ""
    reads_prefix: bool = True
    drafter: Drafter | None = None
    num_computed: int = 0
    num_newest: int = 1
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    prompt_logprobs: list[SampledToken] = field(default_factory=list)
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    preemptions: int = 0
    is_known: bool = False

    @property
    def num_pending(self) -> int:
        """Tokens that still have to go through the model before the next one can be chosen."""
        return len(self.tokens) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def is_decoding(self) -> bool:
        """Only the newest token is pending, or those of the last step, and not one of the prompt."""
        known = len(self.tokens)
        return known - self.num_computed in (1, self.num_newest) and known > self.num_prompt

    @property
    def is_reading(self) -> bool:
        """Tokens are pending that are no news: a prompt, or what has to be computed again."""
        known = len(self.tokens)
        pending = known - self.num_computed
        return pending > 0 and (pending not in (1, self.num_newest) or known == self.num_prompt)
