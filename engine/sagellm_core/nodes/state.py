"""What the router knows: nodes, requests on their way, what was moved so far. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sagellm_core.engine_core.messages import CoreStats, Submission
from sagellm_core.kv_transfer.messages import KVAddress

_SUMS = (
    "steps",
    "preemptions",
    "evictions",
    "failures",
    "restarts",
    "prefix_lookup_tokens",
    "prefix_hit_tokens",
    "drafts_proposed",
    "drafts_accepted",
)


class Role(StrEnum):
    """What a node is for. A hybrid node computes prompts and runs requests, of its own and for others."""

    PREFILL = "prefill"
    DECODE = "decode"
    HYBRID = "hybrid"


@dataclass(slots=True, eq=False)
class NodeState:
    """A node as the router sees it. `returning`: it is down, but somebody is bringing it back."""

    name: str
    role: Role
    send: Callable[[Any], None]
    up: bool = False
    returning: bool = True
    full: bool = False
    address: KVAddress | None = None
    max_model_len: int = 0
    heard_at: float = 0.0
    stats: CoreStats = field(default_factory=CoreStats)
    requests: set[str] = field(default_factory=set)
    prompts: dict[str, int] = field(default_factory=dict)

    @property
    def load(self) -> tuple[int, int]:
        """Smaller is better for a new request: fewer requests, then fewer prompt tokens to compute."""
        return len(self.requests), sum(self.prompts.values())


@dataclass(slots=True, eq=False)
class Flight:
    """A request on its way. `output` are the tokens that came so far; `job_id` changes with every attempt.

    `rank` sorts requests that wait: the more urgent first, then the earlier.
    """

    submission: Submission
    rank: tuple[int, int] = (0, 0)
    attempt: int = 0
    decode: NodeState | None = None
    prefill: NodeState | None = None
    reserving: bool = False
    have: int = 0
    wanted: int = 0
    output: list[int] = field(default_factory=list)
    several: bool = False
    prefill_since: float = 0.0
    cached: int | None = None
    kv_transfer: tuple[int, int, float] = (0, 0, 0.0)
    open_answers: set[int] = field(default_factory=set)

    @property
    def job_id(self) -> str:
        return f"{self.submission.seq_id}#{self.attempt}"

    @property
    def tokens(self) -> list[int]:
        return self.submission.prompt + self.output


@dataclass(slots=True)
class TransferStats:
    """KV blocks that went between nodes since the start; `re_prefills` counts requests that had to begin again."""

    blocks: int = 0
    bytes: int = 0
    ms: float = 0.0
    transfers: int = 0
    failures: int = 0
    re_prefills: int = 0


def sum_up(stats: CoreStats, nodes: Sequence[NodeState], num_waiting: int) -> None:
    """Write the nodes' counters into `stats` as those of one engine: sums; the cache's use is that of the decoders.

    `num_waiting` requests wait for a node.
    """
    decoders = [node.stats for node in nodes if node.up and node.role is not Role.PREFILL]
    stats.running = sum(each.running for each in decoders)
    stats.waiting = num_waiting + sum(each.waiting for each in decoders)
    stats.kv_blocks = sum(each.kv_blocks for each in decoders)
    stats.kv_usage = sum(each.kv_usage * each.kv_blocks for each in decoders) / max(stats.kv_blocks, 1)
    for name in _SUMS:
        setattr(stats, name, sum(getattr(node.stats, name) for node in nodes))
