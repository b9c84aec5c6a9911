"""Paged attention through the kernels. A row's result depends on its own context alone."""

from __future__ import annotations

from array import array
from ctypes import CDLL, byref
from dataclasses import dataclass, field
from itertools import accumulate, chain

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.attention import AttentionSpec, PagedAttention
from sagellm_core.layers.cpu.library import TYPES, Heads, Step, check


@dataclass(slots=True)
class StepArrays:
    """The C view of a step, and the arrays that it points to."""

    step: Step
    arrays: list[array[int]] = field(default_factory=list)


class CpuPagedAttention(PagedAttention):
    """The kernels' attention: float32 inside, for caches of float32 and bfloat16."""

    def __init__(self, library: CDLL, block_size: int, device: torch.device, threads: int) -> None:
        super().__init__(block_size, device)
        self.library = library
        self.threads = threads

    def prepare(self, plan: SchedulerOutput, dtype: torch.dtype) -> StepArrays:
        tables = plan.block_tables
        arrays = [
            array("q", plan.positions),
            array("q", plan.slot_mapping),
            array("q", plan.query_lens),
            array("q", plan.context_lens),
            array("q", accumulate((len(table) for table in tables[:-1]), initial=0)),
            array("q", chain.from_iterable(tables)),
        ]
        pointers = [each.buffer_info()[0] for each in arrays]
        step = Step(len(plan.positions), len(tables), *pointers, self.block_size, 0)
        return StepArrays(step, arrays)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, cache: Tensor, meta: StepArrays, spec: AttentionSpec
    ) -> Tensor:
        query, key, value = (each.contiguous() for each in (query, key, value))
        out = torch.empty_like(query)
        meta.step.num_blocks = cache.shape[1]
        status = self.library.sage_attend(
            byref(meta.step),
            byref(heads_of(spec, cache)),
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            out.data_ptr(),
            TYPES[query.dtype],
            cache.data_ptr(),
            self.threads,
        )
        check(status)
        return out


def heads_of(spec: AttentionSpec, cache: Tensor) -> Heads:
    """The C view of one layer's attention."""
    return Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.window or 0, spec.scale, TYPES[cache.dtype])
