"""What can run at all: the limits of a scheduler, and why a request is beyond them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class SchedulerConfig:
    """Limits of a step. `max_batched_tokens` is the token budget; it covers at least one token a running sequence.

    None leaves the budget to the device; it has to be settled before a scheduler is made. `draft_model`: the workers
    propose the drafts, not a lookup.
    """

    max_batch_size: int = 32
    max_batched_tokens: int | None = None
    max_model_len: int = 4096
    draft_model: bool = False


@dataclass(slots=True, frozen=True)
class Limits:
    """A scheduler's configuration beside the cache that it has."""

    config: SchedulerConfig
    num_blocks: int
    block_size: int

    def capacity(self, num_prompt: int = 0, width: int = 1) -> int:
        """The longest sequence (prompt plus output) that can ever run here.

        `width` sequences of one prompt at the same time share the prompt's full blocks.
        """
        shared = num_prompt // self.block_size if width > 1 else 0
        own = max(self.num_blocks - shared, 0) // width
        return min(self.config.max_model_len, (shared + own) * self.block_size)

    def refusal(self, num_prompt: int, max_total: int | None = None, width: int = 1) -> str | None:
        """Why a prompt of this length can never run here; None when it can.

        `max_total` is the request's own bound, `width` the number of sequences that its search needs at once.
        """
        if num_prompt < 1:
            return "the prompt is empty"
        if max_total is not None and max_total <= num_prompt:
            return f"the prompt has {num_prompt} tokens, but the budget of the request is {max_total}"
        if width > self.config.max_batch_size:
            return f"the search needs {width} sequences at once, but a batch has {self.config.max_batch_size}"
        if num_prompt < self.capacity(num_prompt, width):
            return None
        if num_prompt >= self.config.max_model_len:
            held = f"the model's context is {self.config.max_model_len} tokens"
        else:
            held = f"the KV cache holds {self.num_blocks} blocks of {self.block_size} tokens"
            held += f" for {width} sequences" if width > 1 else ""
        return f"the prompt has {num_prompt} tokens, but {held}, and at least one must be left for the answer"
