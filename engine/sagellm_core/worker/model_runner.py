"""Builds tensors from a step's plan, runs the model over the paged cache, samples."""

from __future__ import annotations

import torch

from sagellm_core.backends.base import Backend
from sagellm_core.comm import ALONE, Place
from sagellm_core.decoding.sampler import SamplingState, sample
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.models.base import CausalLM
from sagellm_core.worker.blocks import BlockStore


class ModelRunner:
    """One model on one device. Nothing of the plan is computed again here."""

    def __init__(
        self, model: CausalLM, backend: Backend, num_blocks: int, block_size: int, place: Place = ALONE
    ) -> None:
        self.place = place
        config = model.config
        self.model = model
        self.device = backend.device
        self.attention = backend.attention(config, block_size)
        shape = (2, num_blocks, block_size, model.num_kv_heads, config.head_dim)
        self.caches = [backend.new_cache(shape, model.dtype) for _ in range(model.num_layers)]
        self.blocks = BlockStore(self.caches)
        self._states: dict[str, SamplingState] = {}

    @torch.inference_mode()
    def run(self, plan: SchedulerOutput) -> StepOutput:
        """One step. Sequences that are finished are forgotten, new ones are remembered until they finish."""
        for seq_id in plan.finished:
            self._states.pop(seq_id, None)
        for new in plan.new:
            self._states[new.seq_id] = SamplingState.of(new)
        sampling = [seq_id for seq_id, wanted in zip(plan.seq_ids, plan.samples, strict=True) if wanted]
        meta = self.attention.prepare(plan, self.model.dtype)
        hidden = self.model.forward(
            self._inputs(plan),
            torch.tensor(plan.positions, device=self.device),
            self.caches,
            self.attention,
            meta,
        )
        if not self.place.is_last:
            self.place.stage.send(hidden)
        if not self.place.is_last or not sampling:
            return StepOutput(plan.step, {})
        rows = self._sample_rows(plan, len(sampling))
        logits = self.model.logits(hidden if rows is None else hidden[rows])
        if not self.place.answers:
            return StepOutput(plan.step, {})
        tokens = sample(logits, [self._states[seq_id] for seq_id in sampling])
        return StepOutput(plan.step, {seq_id: [token] for seq_id, token in zip(sampling, tokens, strict=True)})

    def _inputs(self, plan: SchedulerOutput) -> torch.Tensor:
        """Token ids (tokens,), or the hidden states that the stage before made of them."""
        if self.place.is_first:
            return torch.tensor(plan.token_ids, device=self.device)
        width = self.model.config.hidden_size
        return self.place.stage.receive(plan.num_tokens, width, self.model.dtype, self.device)

    def _sample_rows(self, plan: SchedulerOutput, wanted: int) -> torch.Tensor | None:
        """The last row of every sequence that samples; None when that is every row."""
        if wanted == plan.num_tokens:
            return None
        rows: list[int] = []
        last = -1
        for count, samples in zip(plan.query_lens, plan.samples, strict=True):
            last += count
            if samples:
                rows.append(last)
        return torch.tensor(rows, dtype=torch.long, device=self.device)
