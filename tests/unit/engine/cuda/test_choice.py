"""Choosing by measurement, with clocks that the tests hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sagellm_core.layers.attention import AttentionSpec

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.plans import step_of

from sagellm_core.layers.cuda import prompts
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.choice import OURS, choose, installed
from sagellm_core.layers.cuda.measure import fastest
from sagellm_core.layers.cuda.metadata import Pieces
from sagellm_core.layers.cuda.prompts import TritonPrompts, VarlenPrompts

CPU = torch.device("cpu")
SPEC = AttentionSpec(2, 1, 16, 0.25)


def clock(times: dict[Callable[[], None], float]) -> Callable[[Callable[[], None]], float]:
    return times.__getitem__


def test_the_quickest_stays_and_who_fails_is_out() -> None:
    ran: list[str] = []

    def slow() -> None:
        ran.append("slow")

    def quick() -> None:
        ran.append("quick")

    def broken() -> None:
        raise ValueError("no such shape")

    timer = clock({slow: 2.0, quick: 1.0})
    assert fastest({"slow": slow, "quick": quick, "broken": broken}, timer) == "quick"
    assert ran == ["slow", "quick"]
    with pytest.raises(RuntimeError, match="none of broken"):
        fastest({"broken": broken}, timer)


class Wrong(TritonPrompts):
    """Quick, and not right."""

    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        super().__call__(query, cache, out, pieces, spec)
        out *= 1.5


class Refusing(TritonPrompts):
    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        raise RuntimeError("pages of 256 tokens alone")


def test_a_kernel_for_prompts_has_to_be_right_before_it_is_timed() -> None:
    turn = iter(range(9, 0, -1))
    kernels = {OURS: TritonPrompts(), "other": TritonPrompts(), "wrong": Wrong(), "refusing": Refusing()}
    chosen = choose(kernels, SPEC, 4, torch.float32, CPU, lambda work: float(next(turn)), tokens=5)
    assert chosen == "other"
    assert next(turn) == 7


def test_without_other_libraries_and_for_float32_ours_is_all_there_is() -> None:
    assert list(installed(CPU, torch.float32)) == [OURS]


class Varlen:
    """What torch's function is called with; attends by our kernel."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.calls: list[dict[str, object]] = []

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor, *rest: object, **options: object) -> Tensor:
        self.calls.append({"ends": rest[0], "most": rest[2:], **options})
        return query + 1


@pytest.mark.skipif(not VarlenPrompts.is_installed(), reason="this torch's varlen_attn has no block_table")
def test_torchs_kernel_gets_rows_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of pieces after a decode; a window of 5 is the token and 4 before it. Scattered pieces go to ours."""
    attention = TritonPagedAttention(4, CPU, 1, 4)
    plan = step_of([(1, 9), (3, 8), (2, 2)], 4, seed=0)
    meta = attention.prepare(plan, torch.float32)
    assert meta.pieces is not None
    other = VarlenPrompts()
    spy = Varlen(meta.pieces)
    monkeypatch.setattr(other, "_attend", spy)
    attention.prompts = other
    cache = torch.randn(2, 30, 4, 1, 16)
    query = torch.randn(6, 2, 16)
    out = attention._attend(query, cache, meta, AttentionSpec(2, 1, 16, 0.25, window=5), torch.zeros_like(query))
    torch.testing.assert_close(out[1:], query[1:] + 1)
    (call,) = spy.calls
    assert isinstance(call["ends"], Tensor)
    assert call["ends"].tolist() == [0, 3, 5]
    assert call["window_size"] == (4, 0)
    assert call["most"] == (3, 8)
    scattered = attention.prepare(step_of([(3, 8), (1, 9), (2, 2)], 4, seed=0), torch.float32)
    attention._attend(query, cache, scattered, SPEC, torch.zeros_like(query))
    assert len(spy.calls) == 1


class Wrapper:
    """FlashInfer's wrapper as its manual describes it: `plan` once a step, `run` once a layer."""

    made: list[Wrapper]

    def __init__(self, workspace: Tensor, layout: str) -> None:
        assert layout == "NHD"
        self.plans: list[tuple[list[list[int]], dict[str, object]]] = []
        Wrapper.made.append(self)

    def plan(self, *arguments: Tensor | int, **options: object) -> None:
        self.plans.append(([each.tolist() for each in arguments if isinstance(each, Tensor)], options))

    def run(self, query: Tensor, cache: tuple[Tensor, Tensor]) -> Tensor:
        return query * 2


def test_flashinfer_is_planned_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    Wrapper.made = []
    monkeypatch.setitem(sys.modules, "flashinfer", SimpleNamespace(BatchPrefillWithPagedKVCacheWrapper=Wrapper))
    monkeypatch.setattr(prompts, "_WORKSPACE", 8)
    attention = TritonPagedAttention(4, CPU, 1, 4)
    attention.prompts = prompts.FlashInferPrompts(CPU)
    plan = step_of([(3, 8), (2, 9)], 4, seed=0)
    meta = attention.prepare(plan, torch.float32)
    cache, query = torch.randn(2, 30, 4, 1, 16), torch.randn(5, 2, 16)
    for _ in range(3):
        out = attention._attend(query, cache, meta, SPEC, torch.zeros_like(query))
    torch.testing.assert_close(out, query * 2)
    (wrapper,) = Wrapper.made
    ((tensors, options),) = wrapper.plans
    assert tensors == [[0, 3, 5], [0, 2, 5], plan.block_tables[0] + plan.block_tables[1], [4, 1]]
    assert options["causal"] is True
    assert options["window_left"] == -1
    attention._attend(query, cache, attention.prepare(plan, torch.float32), SPEC, torch.zeros_like(query))
    assert len(wrapper.plans) == 2
