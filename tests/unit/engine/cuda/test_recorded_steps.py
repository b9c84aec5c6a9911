"""Recorded decode steps: which sizes there are, what lies in their inputs, what is replayed and what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.plans import step_of
from torch import Tensor

from sagellm_core.backends import CapturedStep
from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.attention import AttentionMetadata, PagedAttention
from sagellm_core.models import ModelConfig

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.capture import captured
from sagellm_core.layers.cuda.graphs import LARGEST, StaticInputs, bucket_for, buckets, plainly
from sagellm_core.layers.cuda.metadata import MOST_SPLITS, StepMetadata, splits_for

CPU = torch.device("cpu")


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_batch_takes_the_smallest_size_that_holds_it(most: int, count: int) -> None:
    sizes = buckets(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] >= min(most, LARGEST)
    assert sizes[-1] < most + 16
    found = bucket_for(count, sizes)
    assert found is None if count > sizes[-1] else found == min(size for size in sizes if size >= count)


@given(st.integers(1, 4096), st.integers(1, 200_000), st.integers(1, 132))
def test_splits_are_a_power_of_two_and_not_more_than_pay(programs: int, longest: int, processors: int) -> None:
    splits = splits_for(programs, longest, processors)
    assert splits & (splits - 1) == 0
    assert 1 <= splits <= MOST_SPLITS
    assert splits < 2 * max(1, -(-longest // 64))
    assert splits == 1 or (splits // 2) * programs < 2 * processors


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_inputs_are_those_of_the_plan_whatever_was_there_before(data: st.DataObject) -> None:
    """Tables are written where they changed; after any history they are whole. Idle rows are on the dummy page."""
    inputs = StaticInputs(8, 40, 99, 4, CPU)
    for step in range(data.draw(st.integers(1, 5))):
        contexts = data.draw(st.lists(st.integers(1, 150), max_size=8))
        size = data.draw(st.integers(max(1, len(contexts)), 8))
        plan = step_of([(1, context) for context in contexts], 4, seed=data.draw(st.integers(0, 3)) + step % 2)
        inputs.fill(plan, size)
        for name, values, idle in (
            ("tokens", plan.token_ids, 0),
            ("positions", plan.positions, 0),
            ("slots", plan.slot_mapping, 99 * 4),
            ("lengths", plan.context_lens, 1),
        ):
            assert inputs.field(name, size).tolist() == values + [idle] * (size - len(contexts))
        assert inputs.field("rows", size).tolist() == list(range(size))
        tables = inputs.tables(size)
        for row, table in enumerate(plan.block_tables + [[99]] * (size - len(contexts))):
            assert tables[row, : len(table)].tolist() == table


class Counting:
    """A model of no layers whose hidden states are its positions: what it was given can be read off."""

    config: ModelConfig
    dtype = torch.float32
    num_kv_heads = 1
    num_layers = 0

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: AttentionMetadata,
    ) -> Tensor:
        assert isinstance(meta, StepMetadata)
        return torch.stack((inputs.float(), positions.float()), dim=1)

    def logits(self, hidden: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(hidden[:, 1].long() % 8, 8).float()


def recorded(max_batch: int) -> tuple[Callable[[SchedulerOutput], CapturedStep | None], list[int]]:
    """Recorded steps of that model, and the sizes in the order in which they were recorded."""
    order: list[int] = []

    def recorder(run: Callable[[], None]) -> Callable[[], None]:
        order.append(len(order))
        return plainly(run)

    attention = TritonPagedAttention(4, CPU, 1, 4)
    steps = captured(Counting(), attention, [torch.zeros(2, 100, 4, 1, 16)], max_batch, 64, recorder, overlaps=False)
    assert steps is not None
    return steps.run, order


def test_one_token_a_sequence_is_replayed_and_all_else_is_not() -> None:
    run, order = recorded(5)
    assert len(order) == 4  # 8, 4, 2, 1
    plan = step_of([(1, 7), (1, 30), (1, 1)], 4, seed=1)
    step = run(plan)
    assert step is not None
    assert step.greedy == [position % 8 for position in plan.positions]
    assert step.hidden[:, 0].tolist() == plan.token_ids
    assert step.logits.shape == (3, 8)
    assert run(step_of([(1, 7), (2, 9)], 4, seed=1)) is None
    assert run(step_of([(1, 7)] * 9, 4, seed=1)) is None
    chunk = step_of([(1, 7)], 4, seed=1)
    chunk.samples[0] = False
    assert run(chunk) is None


def test_another_attention_is_not_recorded() -> None:
    from sagellm_core.layers.attention import TorchPagedAttention

    other = TorchPagedAttention(4, CPU)
    assert captured(Counting(), other, [torch.zeros(2, 9, 4, 1, 16)], 2, 64, plainly, overlaps=False) is None
