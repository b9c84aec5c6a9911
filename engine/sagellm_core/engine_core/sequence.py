"""One sequence on its way through the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sagellm_protocol.messages import FinishReason


class SequenceStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens known so far, how many of them have their keys and values in the cache, and where.

    `tokens` is prompt plus output. `num_computed` counts the leading tokens whose KV is in `blocks`; a preempted
    sequence falls back to 0 and keeps its output. `max_total` bounds `len(tokens)`.
    """

    seq_id: str
    tokens: list[int]
    max_total: int
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    arrival: int = 0
    num_prompt: int = field(init=False)
    num_computed: int = 0
    num_cached: int = 0
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    status: SequenceStatus = SequenceStatus.WAITING
    finish_reason: FinishReason | None = None
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def num_pending(self) -> int:
        """Tokens that still have to go through the model before the next one can be chosen."""
        return len(self.tokens) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def is_decoding(self) -> bool:
        """Only the newest token is pending."""
        return self.num_pending == 1 and self.num_output > 0

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key: the more urgent first, then the earlier."""
        return (-self.priority, self.arrival)
