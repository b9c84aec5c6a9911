"""Tiles and overlap of a model are those that a clock, held by the test, finds quickest; tokens stay the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from tests.helpers.plans import step_of
from tests.helpers.tiny_models import tiny_model

from sagellm_core.backends import BackendConfig
from sagellm_core.models import read_model_config
from sagellm_core.models.load import load_model
from sagellm_core.models.weights import WeightReader

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.interpreted import InterpretedBackend

from sagellm_core.layers.cuda import capture, tune
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.capture import captured
from sagellm_core.layers.cuda.fused import FusedDecoder
from sagellm_core.layers.cuda.graphs import plainly
from sagellm_core.layers.cuda.kernels import GemvTiles, decode, gemv, pointwise

pytestmark = [pytest.mark.spec("E5"), pytest.mark.slow]


CANDIDATES = (GemvTiles(128, 32), GemvTiles(64, 64), GemvTiles(256, 32))


def test_what_the_clock_likes_is_kept_and_the_logits_are_those_of_the_plain_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune, "CANDIDATES", CANDIDATES)
    folder = tiny_model("qwen2", num_hidden_layers=1, layer_types=None)
    config = read_model_config(folder)
    backend = InterpretedBackend(BackendConfig("interpreted"))
    with WeightReader(folder) as reader:
        model = load_model(config, reader, torch.float32, backend, 64)
    assert isinstance(model, FusedDecoder)
    model.tiles.clear()
    draw = random.Random(0)
    times: list[float] = []

    def clock(work: Callable[[], None]) -> float:
        times.append(draw.random())
        return times[-1]

    attention = backend.attention(config, 4)
    assert isinstance(attention, TritonPagedAttention)
    caches = [torch.zeros(2, 12, 4, model.num_kv_heads, config.head_dim)]
    steps = captured(model, attention, caches, 1, 32, plainly, overlaps=False, timer=clock)
    assert steps is not None
    kinds = ["qkv", "output", "gate_up", "down", "head"]
    assert list(model.tiles) == kinds
    for kind, first in zip(kinds, range(0, len(times), len(CANDIDATES)), strict=True):
        taken = times[first : first + len(CANDIDATES)]
        assert model.tiles[kind] == CANDIDATES[taken.index(min(taken))]
    plan = step_of([(1, 9)], 4, seed=1)
    step = steps.run(plan)
    assert step is not None
    with torch.inference_mode():
        meta = attention.prepare(plan, torch.float32)
        hidden = model.decoder.forward(
            torch.tensor(plan.token_ids), torch.tensor(plan.positions), caches, attention, meta
        )
    torch.testing.assert_close(step.logits, model.decoder.logits(hidden), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quicker", ["in turn", "overlapping"])
def test_launches_overlap_where_that_is_quicker(quicker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' overlapping form runs too, but for the two instructions that only a GPU has."""
    for module in (decode, gemv, pointwise):
        for name in ("gdc_wait", "gdc_launch_dependents"):
            monkeypatch.setattr(module, name, lambda: None)
    monkeypatch.setattr(capture, "tune", lambda *arguments: None)
    folder = tiny_model("qwen2", num_hidden_layers=1, layer_types=None)
    config = read_model_config(folder)
    backend = InterpretedBackend(BackendConfig("interpreted"))
    with WeightReader(folder) as reader:
        model = load_model(config, reader, torch.float32, backend, 64)
    assert isinstance(model, FusedDecoder)
    times = iter((2.0, 1.0) if quicker == "overlapping" else (1.0, 2.0))
    caches = [torch.zeros(2, 12, 4, model.num_kv_heads, config.head_dim)]
    attention = backend.attention(config, 4)
    captured(model, attention, caches, 1, 32, plainly, overlaps=True, timer=lambda work: next(times))
    assert model.pdl == (quicker == "overlapping")
    assert next(times, None) is None
