"""Rotary position embeddings (Su et al. 2021), with the scalings of Hugging Face's `linear` and `llama3`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sagellm_core.models.config import RopeConfig


@dataclass
class StepRope:
    """The rotations of one step: whole tables (max_position, 1, head_dim), and the position of each token."""

    cos_table: Tensor
    sin_table: Tensor
    positions: Tensor

    @cached_property
    def cos(self) -> Tensor:
        """(tokens, 1, head_dim)."""
        return self.cos_table[self.positions]

    @cached_property
    def sin(self) -> Tensor:
        """(tokens, 1, head_dim)."""
        return self.sin_table[self.positions]


def rope_tables(config: RopeConfig, head_dim: int, max_position: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines by position, float32, each (max_position, 1, head_dim).

    The sign makes `x * cos + roll(x, head_dim / 2) * sin` the rotation of the halves (x1, x2) that Llama uses.
    """
    frequencies = _frequencies(config, head_dim)
    angles = torch.outer(torch.arange(max_position, dtype=torch.float32), frequencies)
    cos = torch.cat((angles, angles), dim=-1).cos()
    sin = torch.cat((-angles.sin(), angles.sin()), dim=-1)
    return cos[:, None].to(device), sin[:, None].to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (tokens, heads, head_dim) by tables that were picked for the tokens' positions."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return frequencies / config.factor
    if config.kind == "llama3":
        return _llama3(frequencies, config)
    return frequencies


def _llama3(frequencies: Tensor, config: RopeConfig) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""
    original, low, high = config.original_max_position, config.low_freq_factor, config.high_freq_factor
    wavelength = 2 * math.pi / frequencies
    stretched = torch.where(wavelength > original / low, frequencies / config.factor, frequencies)
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * stretched / config.factor + smooth * stretched
    between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(between, blended, stretched)
