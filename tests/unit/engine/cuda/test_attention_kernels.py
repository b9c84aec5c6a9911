"""Our attention kernels, interpreted, against the torch reference: same output, same cache, whatever the step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.plans import step_of

from sagellm_core.layers.attention import AttentionSpec, TorchPagedAttention
from sagellm_core.layers.rope import StepRope

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.attention_cases import CPU, PROCESSORS, Case, check

from sagellm_core.layers.cuda.attention import TritonPagedAttention

pytestmark = pytest.mark.spec("E5")


def test_decodes_alone() -> None:
    check(Case([(1, 1), (1, 9), (1, 200), (1, 64)]))


def test_a_prompt_alone_longer_than_a_tile() -> None:
    check(Case([(70, 70)]))


def test_prompts_chunks_drafts_and_decodes_in_one_step() -> None:
    check(Case([(5, 5), (1, 33), (3, 80), (1, 1), (17, 40)]))


@pytest.mark.parametrize("window", [1, 3, 16])
def test_a_sliding_window(window: int) -> None:
    check(Case([(1, 40), (6, 30), (9, 9), (1, 2)], window=window))
    check(Case([(1, 300), (1, 7)], window=window * 9))


def test_head_norms_and_odd_shapes() -> None:
    check(Case([(1, 20), (1, 3)], norms=True))
    check(Case([(4, 20), (1, 3)], norms=True, heads=14, kv_heads=2, head_dim=24))
    check(Case([(1, 17), (1, 5)], heads=3, kv_heads=3, head_dim=8, rope=False))


def test_half_precision() -> None:
    check(Case([(1, 90), (1, 3)], dtype=torch.float16))
    check(Case([(12, 40), (1, 3)], dtype=torch.float16))


sequences = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 90)).map(lambda pair: (pair[0], sum(pair))), min_size=1, max_size=5
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sequences=sequences,
    heads=st.sampled_from([(4, 4), (4, 1), (6, 2)]),
    head_dim=st.sampled_from([8, 16, 20]),
    block_size=st.sampled_from([1, 4, 16]),
    window=st.sampled_from([None, None, 1, 7, 50]),
    options=st.tuples(st.booleans(), st.booleans()),
)
def test_any_step(
    sequences: list[tuple[int, int]],
    heads: tuple[int, int],
    head_dim: int,
    block_size: int,
    window: int | None,
    options: tuple[bool, bool],
) -> None:
    check(Case(sequences, *heads, head_dim, block_size, window, *options))


def test_attention_without_the_fused_entry() -> None:
    """What the transformers fallback calls: heads that are rotated already, in strided views."""
    torch.manual_seed(1)
    plan = step_of([(1, 30), (6, 20), (1, 4)], 4, seed=3)
    spec = AttentionSpec(4, 2, 16, 0.25)
    blocks = 1 + max(block for table in plan.block_tables for block in table)
    cache = torch.randn(2, blocks, 4, 2, 16)
    query, key, value = (torch.randn(heads, plan.num_tokens, 16).transpose(0, 1) for heads in (4, 2, 2))
    reference = TorchPagedAttention(4, CPU)
    other = cache.clone()
    expected = reference.attend(query, key, value, other, reference.prepare(plan, torch.float32), spec)
    ours = TritonPagedAttention(4, CPU, 2, PROCESSORS)
    found = ours.attend(query, key, value, cache, ours.prepare(plan, torch.float32), spec)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(cache, other)


def test_rotations_narrower_than_a_head_take_the_plain_way() -> None:
    """Partial rotation is the reference's: the kernels rotate whole heads."""
    seen: list[str] = []

    class Watched(TritonPagedAttention):
        def attend(self, *args: object) -> torch.Tensor:
            seen.append("attend")
            return torch.zeros(1, 2, 4)

    plan = step_of([(1, 1)], 4, seed=0)
    ours = Watched(4, CPU, 1, PROCESSORS)
    rope = StepRope(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([0]))
    spec = AttentionSpec(2, 1, 4, 1.0)
    ours.attend_fused(
        torch.randn(1, 16), rope, None, torch.zeros(2, 9, 4, 1, 4), ours.prepare(plan, torch.float32), spec
    )
    assert seen == ["attend"]
