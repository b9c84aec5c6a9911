"""Rotary position embeddings (Su et al. 2021), with the scalings that Hugging Face calls linear, dynamic, llama3, yarn.

A scaling is here a table of rotations by position, so that a token's rotation depends on its position alone, however
a prompt is cut into steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sagellm_core.models.rope_config import RopeConfig


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
    positions = torch.arange(max_position, dtype=torch.float32)
    if config.kind == "dynamic":
        angles = positions[:, None] * _dynamic(config, head_dim, max_position)
    else:
        angles = torch.outer(positions, _frequencies(config, head_dim))
    scale = _yarn_scale(config) if config.kind == "yarn" else 1.0
    cos = torch.cat((angles, angles), dim=-1).cos() * scale
    sin = torch.cat((-angles.sin(), angles.sin()), dim=-1) * scale
    return cos[:, None].to(device), sin[:, None].to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (tokens, heads, head_dim) by tables that were picked for the tokens' positions."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _plain(theta: float | Tensor, head_dim: int) -> Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / (theta**exponents)


def _frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    frequencies = _plain(config.theta, head_dim)
    if config.kind == "linear":
        return frequencies / config.factor
    if config.kind == "llama3":
        return _llama3(frequencies, config)
    if config.kind == "yarn":
        return _yarn(frequencies, config, head_dim)
    return frequencies


def _dynamic(config: RopeConfig, head_dim: int, max_position: int) -> Tensor:
    """Frequencies (max_position, head_dim / 2) that fall as the text grows past the original context ("dynamic NTK").

    Position p has those of a text of p + 1 tokens: what generating token by token gives. `transformers` rotates a
    prompt longer than the original context as a whole by its length; then a key would depend on what follows it.
    """
    original, factor = config.original_max_position, config.factor
    lengths = torch.arange(1, max_position + 1, dtype=torch.float32).clamp(min=original)
    stretch = (factor * lengths / original) - (factor - 1)
    return _plain((config.theta * stretch ** (head_dim / (head_dim - 2)))[:, None], head_dim)


def _llama3(frequencies: Tensor, config: RopeConfig) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""
    original, low, high = config.original_max_position, config.low_freq_factor, config.high_freq_factor
    wavelength = 2 * math.pi / frequencies
    stretched = torch.where(wavelength > original / low, frequencies / config.factor, frequencies)
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * stretched / config.factor + smooth * stretched
    between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(between, blended, stretched)


def _yarn(frequencies: Tensor, config: RopeConfig, head_dim: int) -> Tensor:
    """Slow dimensions stretched by `factor`, fast ones kept, a ramp between (Peng et al. 2023, section 3.2)."""

    def dimension(rotations: float) -> float:
        """The dimension that turns so many times within the original context."""
        turns = config.original_max_position / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    steps = torch.arange(head_dim // 2, dtype=torch.float32)
    ramp = ((steps - low) / (high - low or 0.001)).clamp(0, 1)
    return frequencies / config.factor * ramp + frequencies * (1 - ramp)


def _yarn_scale(config: RopeConfig) -> float:
    """What the rotations are multiplied by, which makes attention sharper (Peng et al. 2023, section 3.4)."""

    def scale(strength: float) -> float:
        return 0.1 * strength * math.log(config.factor) + 1.0 if config.factor > 1 else 1.0

    if config.attention_factor is not None:
        return config.attention_factor
    if config.mscale and config.mscale_all_dim:
        return scale(config.mscale) / scale(config.mscale_all_dim)
    return scale(1.0)
