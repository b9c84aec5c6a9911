"""Which sequence asked for which LoRA adapter, and which rows of a step that makes."""

from __future__ import annotations

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import SchedulerOutput


class AdapterRoutes:
    """Remembers the adapters of sequences from their first step to their end."""

    def __init__(self) -> None:
        self._adapters: dict[str, str] = {}

    def begin(self, plan: SchedulerOutput) -> None:
        """Take in a plan's forks, ends and newcomers."""
        for fork in plan.forks:
            if (adapter := self._adapters.get(fork.parent)) is not None:
                self._adapters[fork.child] = adapter
        for seq_id in plan.finished:
            self._adapters.pop(seq_id, None)
        for new in plan.new:
            if new.adapter:
                self._adapters[new.seq_id] = new.adapter

    def groups(self, plan: SchedulerOutput, device: torch.device) -> list[tuple[str, Tensor | None]]:
        """The rows of each adapter in the step, see `layers.lora.AdapterRows`; empty when nobody has one."""
        if not self._adapters:
            return []
        rows: dict[str, list[int]] = {}
        first = 0
        for seq_id, count in zip(plan.seq_ids, plan.query_lens, strict=True):
            adapter = self._adapters.get(seq_id)
            if adapter is not None:
                rows.setdefault(adapter, []).extend(range(first, first + count))
            first += count
        if len(rows) == 1 and all(len(each) == plan.num_tokens for each in rows.values()):
            return [(name, None) for name in rows]
        return [(name, torch.tensor(each, device=device)) for name, each in rows.items()]
