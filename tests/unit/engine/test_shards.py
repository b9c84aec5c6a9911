"""Models that are split over ranks give the numbers of the whole one (SPEC E5, E7); the ranks are threads here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.forward import hidden_states, load, logits, whole_logits
from tests.helpers.tiny_models import FALLBACK, OWN, tiny_model
from torch import Tensor

from sagellm_core.backends import BackendConfig
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.errors import EngineError
from sagellm_core.layers.linear import LinearOp
from sagellm_core.models.base import CausalLM
from sagellm_core.models.shard import Shard

pytestmark = pytest.mark.spec("E5", "E7")

TOKENS = [7, 99, 31, 5, 250, 12, 64, 8, 8, 190]


@dataclass
class Meeting:
    """Where threads exchange tensors."""

    size: int
    given: list[Tensor | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given = [None] * self.size
        self.barrier = threading.Barrier(self.size, timeout=30)


@dataclass
class ThreadRank:
    """A communicator of one thread among several; counts the elements that it sent."""

    rank: int
    size: int
    meeting: Meeting
    sent: int = 0

    def all_reduce(self, x: Tensor) -> Tensor:
        return torch.stack(self._exchange(x)).sum(0)

    def all_gather(self, x: Tensor) -> Tensor:
        return torch.cat(self._exchange(x), dim=-1)

    def _exchange(self, x: Tensor) -> list[Tensor]:
        self.sent += x.numel()
        self.meeting.given[self.rank] = x.clone()
        self.meeting.barrier.wait()
        found = [each for each in self.meeting.given if each is not None]
        self.meeting.barrier.wait()
        return found


def run(model: CausalLM, inputs: Tensor) -> Tensor:
    return hidden_states(model, inputs, TOKENS)


def in_ranks(size: int, work: Callable[[ThreadRank], Any]) -> list[Any]:
    """What `work` gives on each of `size` threads."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [ThreadRank(rank, size, meeting) for rank in range(size)]))


def whole(folder: Path) -> Tensor:
    return whole_logits(folder, TOKENS)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("family", OWN)
def test_ranks_that_share_every_matrix(family: str, size: int) -> None:
    """With four ranks and two key-value heads, two ranks have the same head; the last rank's vocabulary is shorter."""
    folder = tiny_model(family, vocab_size=323)
    wanted = whole(folder)

    def work(group: ThreadRank) -> Tensor:
        model = load(folder, Shard(group))
        return logits(model, run(model, torch.tensor(TOKENS)))

    for found in in_ranks(size, work):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", OWN)
def test_a_rank_holds_its_part_alone(family: str) -> None:
    folder = tiny_model(family)
    part, one = Counting(), Counting()
    model = load(folder, Shard(ThreadRank(1, 2, Meeting(2))), part)
    assert model.num_kv_heads * 2 == load(folder, backend=one).num_kv_heads
    assert part.elements == pytest.approx(one.elements / 2, rel=0.01)


class Counting(CPUBackend):
    """Counts the elements of the matrices that it is given."""

    def __init__(self) -> None:
        super().__init__(BackendConfig("cpu"))
        self.elements = 0

    def linear(self, weight: Tensor, bias: Tensor | None = None, *, shared: bool = False) -> LinearOp:
        self.elements += weight.numel()
        return super().linear(weight, bias, shared=shared)


@pytest.mark.parametrize("family", [*OWN, *(name for name in FALLBACK if name != "stablelm")])
def test_stages_that_hand_on_their_states(family: str) -> None:
    folder = tiny_model(family)
    first, last = (load(folder, Shard(stage=stage, num_stages=2)) for stage in range(2))
    assert first.num_layers == last.num_layers == 1
    hidden = run(last, run(first, torch.tensor(TOKENS)))
    torch.testing.assert_close(logits(last, hidden), whole(folder), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [name for name in FALLBACK if name != "stablelm"])
def test_ranks_that_share_a_model_of_transformers(family: str) -> None:
    folder = tiny_model(family)
    wanted = whole(folder)

    def work(group: ThreadRank) -> tuple[Tensor, int]:
        model = load(folder, Shard(group))
        return logits(model, run(model, torch.tensor(TOKENS))), group.sent

    for found, sent in in_ranks(2, work):
        assert sent > 0
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_plan_is_refused_by_name() -> None:
    folder = tiny_model("stablelm")
    with pytest.raises(EngineError, match=r"StableLmForCausalLM.*tensor_parallel_size=1"):
        load(folder, Shard(ThreadRank(0, 2, Meeting(2))))
    with pytest.raises(EngineError, match="pipeline_parallel_size=1"):
        load(folder, Shard(num_stages=2))


def test_a_split_that_cannot_be_names_those_that_can() -> None:
    folder = tiny_model("llama")
    with pytest.raises(EngineError, match=r"4 attention heads.*shared by 3 ranks; possible: 1, 2, 4"):
        load(folder, Shard(ThreadRank(0, 3, Meeting(3))))
    with pytest.raises(EngineError, match="2 layers cannot fill 3 stages"):
        load(folder, Shard(num_stages=3))


@given(layers=st.integers(1, 100), stages=st.integers(1, 16))
def test_stages_cover_the_layers_once(layers: int, stages: int) -> None:
    parts = [Shard(stage=stage, num_stages=stages).layers(layers) for stage in range(stages)]
    assert [layer for part in parts for layer in part] == list(range(layers))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(tokens=st.integers(1, 1000), size=st.integers(1, 16))
def test_the_vocabulary_is_covered_once(tokens: int, size: int) -> None:
    parts = [Shard(ThreadRank(rank, size, Meeting(size))).vocabulary(tokens) for rank in range(size)]
    assert [token for part in parts for token in part] == list(range(tokens))
