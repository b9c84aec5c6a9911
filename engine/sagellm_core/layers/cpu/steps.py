"""Steps as one call of the kernels: from token ids to logits and likeliest tokens."""

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
    """A `StepCapture` without recording: any step is one call."""

    general: ClassVar[bool] = True

    model: FusedDecoder
    attention: CpuPagedAttention
    caches: list[Tensor]
    logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def run(self, plan: SchedulerOutput, rows: list[int], masks: array[int] | None = None) -> CapturedStep | None:
        """The step, whatever it is."""
        config, count = self.model.config, len(rows)
        if self.logits.shape[0] < count:
            self.logits = torch.empty((count, config.vocab_size), dtype=torch.float32)
        hidden = torch.empty((plan.num_tokens, config.hidden_size), dtype=self.model.dtype)
        logits = self.logits[:count]
        meta = self.attention.prepare(plan, self.model.dtype)
        ids = array("q", plan.token_ids)
        greedy = self.model.decode(ids, self.caches, meta, hidden, array("q", rows), logits, masks)
        return CapturedStep(hidden, logits, greedy)
