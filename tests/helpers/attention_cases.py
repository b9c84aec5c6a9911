"""Our attention beside the torch reference: same output, same cache, whatever the step, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tests.helpers.plans import step_of
from torch import Tensor

from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.attention import AttentionSpec, HeadNorms, PagedAttention, TorchPagedAttention
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.rope import StepRope

CPU = torch.device("cpu")
PROCESSORS = 4


@dataclass(frozen=True)
class Case:
    """Sequences as (new tokens, context with them), and the shape of the attention."""

    sequences: list[tuple[int, int]]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 4
    window: int | None = None
    rope: bool = True
    norms: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(self.heads, self.kv_heads, self.head_dim, self.head_dim**-0.5, self.window)


def plan_of(case: Case) -> SchedulerOutput:
    return step_of(case.sequences, case.block_size, seed=len(case.sequences))


def check(case: Case, device: torch.device = CPU) -> None:
    """Both attentions over the same random cache and step: results and caches agree.

    The reference is computed in float32 on the CPU, ours on `device` in the case's type, on a cache where every slot
    that the step does not reach is NaN.
    """
    torch.manual_seed(0)
    plan, spec = plan_of(case), case.spec
    blocks = 1 + max(block for table in plan.block_tables for block in table)
    cache = torch.randn(2, blocks, case.block_size, case.kv_heads, case.head_dim).to(case.dtype)
    qkv = torch.randn(plan.num_tokens, (case.heads + 2 * case.kv_heads) * case.head_dim).to(case.dtype)
    positions = torch.tensor(plan.positions)
    cos, sin = torch.randn(2, max(plan.positions) + 1, 1, case.head_dim).to(case.dtype)
    query_norm, key_norm = torch.rand(2, case.head_dim).to(case.dtype) + 0.5

    def run(attention: PagedAttention, on: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        given = [each.to(on, dtype) for each in (qkv, cos, sin, query_norm, key_norm)]
        rope = StepRope(given[1], given[2], positions.to(on)) if case.rope else None
        norms = HeadNorms(given[3], given[4], 1e-6) if case.norms else None
        pages = cache.to(on, dtype, copy=True)
        meta = attention.prepare(plan, dtype)
        return attention.attend_fused(given[0], rope, norms, pages, meta, spec).cpu().float(), pages.cpu().float()

    expected, expected_cache = run(TorchPagedAttention(case.block_size, CPU), CPU, torch.float32)
    unreached = _unreached(plan, case.block_size, blocks)
    for each in (cache, expected_cache):
        each.view(2, -1, case.kv_heads, case.head_dim)[:, unreached] = float("nan")
    ours = TritonPagedAttention(case.block_size, device, case.kv_heads, PROCESSORS)
    found, found_cache = run(ours, device, case.dtype)
    assert torch.equal(found_cache.isnan(), expected_cache.isnan())
    near(found, expected, case.dtype)
    near(found_cache.nan_to_num(), expected_cache.nan_to_num(), case.dtype)


def near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Within what rounding to this type explains."""
    if dtype is torch.float32:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - expected).norm() <= 1e-2 * expected.norm()


def _unreached(plan: SchedulerOutput, block_size: int, blocks: int) -> list[int]:
    """Slots that are neither context nor new."""
    used = {
        table[at // block_size] * block_size + at % block_size
        for table, length in zip(plan.block_tables, plan.context_lens, strict=True)
        for at in range(length)
    }
    return [slot for slot in range(blocks * block_size) if slot not in used]
