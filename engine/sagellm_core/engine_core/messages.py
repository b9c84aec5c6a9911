"""What goes into an engine core and what comes out of it, across threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.text.output import OutputText
from sagellm_protocol.errors import Error
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams


@dataclass(slots=True, frozen=True)
class Submission:
    """A request for the scheduler; `seq_id` is its id.

    `new_text` makes what turns the tokens of one answer into text. `stop_ids` end an answer, `deadline` is on the
    core's clock. With `pooling`, a vector is wanted, not tokens. `output`: tokens that were given elsewhere before; the
    answer goes on after them.
    """

    seq_id: str
    prompt: list[int]
    sampling: SamplingParams
    new_text: Callable[[], OutputText] | None = None
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    max_total: int | None = None
    deadline: float | None = None
    adapter: str = ""
    pooling: str = ""
    output: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Update:
    """News of one answer to a request: tokens with the text that they made certain, an end, or both.

    `at` is when the step ended, `scheduled_at` when the request's first step began. `score` ranks the answers of a
    search. `vector` is what a pooling request gets. `drafts` are how many draft tokens were proposed and accepted so
    far, `kv_transfer` blocks, bytes and milliseconds that its prompt took from a prefill node.
    """

    seq_id: str
    at: float
    tokens: list[SampledToken] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    error: Error | None = None
    scheduled_at: float = 0.0
    cached_tokens: int = 0
    index: int = 0
    score: float = 0.0
    vector: list[float] | None = None
    prompt_logprobs: list[SampledToken] | None = None
    drafts: tuple[int, int] = (0, 0)
    kv_transfer: tuple[int, int, float] = (0, 0, 0.0)


@dataclass(slots=True)
class CoreStats:
    """Counters for whoever looks; written by the step thread, read by any.

    `comm`: all-reduces, all-gathers and seconds in them, of one rank of an engine that has several.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    kv_blocks: int = 0
    block_size: int = 0
    bytes_per_token: int = 0
    steps: int = 0
    preemptions: int = 0
    evictions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_lookup_tokens: int = 0
    prefix_hit_tokens: int = 0
    drafts_proposed: int = 0
    drafts_accepted: int = 0
    failures: int = 0
    restarts: int = 0
    device: dict[str, object] = field(default_factory=dict)
    dtype: str = ""
    comm: tuple[int, int, float] = (0, 0, 0.0)

    @property
    def prefix_hit_ratio(self) -> float:
        return self.prefix_hit_tokens / self.prefix_lookup_tokens if self.prefix_lookup_tokens else 0.0

    @property
    def spec_accept_rate(self) -> float:
        """Share of draft tokens that were right."""
        return self.drafts_accepted / self.drafts_proposed if self.drafts_proposed else 0.0

    def as_metrics(self) -> dict[str, float]:
        """The counters by the names that `LLMEngine.get_metrics` gives them."""
        return {
            "requests_running": self.running,
            "requests_waiting": self.waiting,
            "kv_cache_usage_ratio": self.kv_usage,
            "kv_used_tokens": round(self.kv_usage * self.kv_blocks * self.block_size),
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.generation_tokens,
            "prefix_hit_ratio": self.prefix_hit_ratio,
            "preemptions_total": self.preemptions,
            "evict_count": self.evictions,
            "steps_total": self.steps,
            "step_failures_total": self.failures,
            "restarts_total": self.restarts,
            "draft_tokens_total": self.drafts_proposed,
            "accepted_tokens_total": self.drafts_accepted,
            "spec_accept_rate": self.spec_accept_rate,
            "allreduce_count": self.comm[0],
            "allgather_count": self.comm[1],
            "comm_overhead_ms": 1000 * self.comm[2],
        }
