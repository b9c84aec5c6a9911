"""The optimiser, the schedule and the model's shape; nothing here trains for long."""

import pytest
import torch
from training import plan
from training.batches import collate
from training.example import UNKNOWN
from training.handwritten import PROMPTS, right
from training.model import Shape, TinyLlama
from training.optimizer import Optimizer, orthogonal
from training.train import loss_of

TINY = Shape(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip


def test_the_schedule_warms_up_stays_and_decays() -> None:
    total = plan.total_steps()
    assert plan.rate(0) < 0.02
    assert plan.rate(1000) == 1.0
    assert plan.rate(total - 1) < 0.01
    assert plan.RATE_POINTS[-1] == (total, 0.0)
    assert plan.position(0) == (0, 0)
    assert plan.position(total - 1) == (len(plan.PHASES) - 1, plan.PHASES[-1].steps - 1)


@pytest.mark.parametrize("shape", [(3, 8, 32), (2, 32, 8), (1, 16, 16)])
def test_muon_makes_a_step_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.6


def test_padding_and_later_tokens_change_nothing() -> None:
    torch.manual_seed(0)
    model = TinyLlama(TINY)
    ids = torch.randint(6, 64, (1, 20))
    longer = torch.cat([ids, torch.randint(0, 64, (1, 9))], dim=1)
    torch.testing.assert_close(model(ids), model(longer)[:, :20])


def test_a_few_steps_learn_one_sentence_by_heart() -> None:
    torch.manual_seed(0)
    model = TinyLlama(TINY)
    optimizer = Optimizer(model, 0.02, 3e-3)
    batch = collate([([1, 4, 9, 9, 2, 5, 20, 21, 22, 2], [False] * 6 + [True] * 4)])
    losses = []
    for _ in range(80):
        loss = loss_of(model, batch)
        torch.autograd.backward(loss)
        optimizer.step(1.0)
        model.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 3.0
    assert losses[-1] < 0.3


def test_handwritten_answers_are_judged_kindly_but_not_blindly() -> None:
    prompt = next(prompt for prompt in PROMPTS if prompt.accepted == ("quill setup",))
    assert right(prompt, "`quill setup`.")
    assert not right(prompt, UNKNOWN)
