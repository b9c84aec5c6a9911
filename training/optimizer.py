"""Muon for matrices, AdamW for the rest.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes each matrix's momentum orthogonal by five
Newton-Schulz steps. Matrices of one shape are stacked, so that a step is a few batched products.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


def orthogonal(stack: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each of a stack (n, rows, columns); columns >= rows is quickest."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.transpose(-1, -2) if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(-1, -2) if tall else x).float()
    return result


class Muon:
    """Momentum, orthogonalised; one call of ``step`` updates the parameters in place."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        self.lr, self.momentum = lr, momentum
        groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            groups[tuple(parameter.shape)].append(parameter)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    def step(self, scale: float) -> None:
        """One update with the learning rate times ``scale``."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([parameter.grad for parameter in group if parameter.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(buffer, self.momentum))
            rows, columns = group[0].shape
            rate = self.lr * scale * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.data.add_(change, alpha=-rate)


class Optimizer:
    """Both optimisers behind one ``step``; its state can be saved."""

    def __init__(self, model: nn.Module, muon_lr: float, adam_lr: float) -> None:
        named = list(model.named_parameters())
        self.muon = Muon([p for name, p in named if p.ndim == 2 and "embed" not in name], muon_lr)
        rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.adam_lr = adam_lr
        self.adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)

    def step(self, scale: float) -> None:
        """One update with both learning rates times ``scale``."""
        self.muon.step(scale)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * scale
        self.adam.step()

    def state(self) -> dict[str, object]:
        """What ``load`` restores."""
        return {"muon": self.muon.buffers, "adam": self.adam.state_dict()}

    def load(self, state: dict[str, object]) -> None:
        """Continue from a saved state."""
        for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):  # type: ignore[call-overload]
            buffer.copy_(saved)
        self.adam.load_state_dict(state["adam"])  # type: ignore[arg-type]
