"""From a loaded model to its recorded decode steps, tuned to the device by measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import BatchType, SchedulerOutput
from sagellm_core.layers.attention import PagedAttention
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.fused import FusedDecoder
from sagellm_core.layers.cuda.graphs import RecordedDecode, Recorder, StaticInputs, buckets
from sagellm_core.layers.cuda.measure import Timer, fastest
from sagellm_core.layers.cuda.tune import tune
from sagellm_core.models.base import CausalLM

_IN_TURN, _OVERLAP = "in turn", "overlapping"


@torch.inference_mode()
def captured(
    model: CausalLM,
    attention: PagedAttention,
    caches: list[Tensor],
    max_batch: int,
    max_model_len: int,
    recorder: Recorder,
    *,
    overlaps: bool,
    timer: Timer | None = None,
) -> RecordedDecode | None:
    """Record every size of batch.

    With a `timer`, tiles and overlapping launches are chosen by measurement first. `overlaps`: the device can start a
    launch before the last one has ended.

    The last block of `caches` is the dummy page. None for an attention that is not ours. Raises RuntimeError when the
    model does what cannot be recorded.
    """
    if not isinstance(attention, TritonPagedAttention):
        return None
    sizes = buckets(max_batch)
    block_size, dummy = attention.block_size, caches[0].shape[1] - 1
    blocks = -(-max_model_len // block_size)
    inputs = StaticInputs(sizes[-1], blocks, dummy, block_size, attention.device)
    steps = RecordedDecode(model, attention, caches, inputs, sizes, max_model_len, recorder)
    if timer is not None and isinstance(model, FusedDecoder) and model.has_plain_matrices:
        tune(model, recorder, timer, attention.splits(1, max_model_len))
        if overlaps:
            _choose_overlap(model, steps, timer)
    steps.record()
    return steps


def _choose_overlap(model: FusedDecoder, steps: RecordedDecode, timer: Timer) -> None:
    """Overlapping launches or not: whichever replays a step of one sequence faster, if both give the same numbers."""
    recorded: dict[str, RecordedDecode] = {}
    for name in (_IN_TURN, _OVERLAP):
        model.pdl = name == _OVERLAP
        recorded[name] = steps.only(1)
    plan = _one_token(steps)
    logits = [_logits(each, plan) for each in recorded.values()]
    model.pdl = (
        torch.equal(*logits) and fastest({name: each.again for name, each in recorded.items()}, timer) == _OVERLAP
    )


def _logits(steps: RecordedDecode, plan: SchedulerOutput) -> Tensor:
    found = steps.run(plan)
    assert found is not None, "one token a sequence is what is recorded"
    return found.logits.clone()


def _one_token(steps: RecordedDecode) -> SchedulerOutput:
    """A step of one sequence of one token, on the dummy page."""
    page = steps.caches[0].shape[1] - 1
    slot = page * steps.attention.block_size
    return SchedulerOutput(0, BatchType.DECODE, ["measured"], [1], [0], [slot], [1], [1], [[page]], [True])
