"""Decode steps as one call of the kernels: from token ids to logits and likeliest tokens."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sagellm_core.backends.base import CapturedStep
from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.cpu.attention import CpuPagedAttention
from sagellm_core.layers.cpu.decoder import FusedDecoder


@dataclass(slots=True)
class DecodeSteps:
    """A `StepCapture` without recording: nothing of a step depends on how many sequences there are."""

    masks: ClassVar[bool] = True
    model: FusedDecoder
    attention: CpuPagedAttention
    caches: list[Tensor]
    hidden: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def run(self, plan: SchedulerOutput, masks: array[int] | None = None) -> CapturedStep | None:
        """The step where every sequence brings one token and wants the next; else None."""
        count = len(plan.seq_ids)
        if len(plan.token_ids) != count or plan.drafts or not all(plan.samples):
            return None
        if self.hidden.shape[0] < count:
            config = self.model.config
            self.hidden = torch.empty((count, config.hidden_size), dtype=self.model.dtype)
            self.logits = torch.empty((count, config.vocab_size), dtype=torch.float32)
        hidden, logits = self.hidden[:count], self.logits[:count]
        meta = self.attention.prepare(plan, self.model.dtype)
        greedy = self.model.decode(array("q", plan.token_ids), self.caches, meta, hidden, logits, masks)
        return CapturedStep(hidden, logits, greedy)
