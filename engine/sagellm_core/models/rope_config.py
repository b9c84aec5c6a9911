"""How a model turns positions into rotations, as `config.json` says it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagellm_core.errors import ModelLoadError

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(slots=True, frozen=True)
class RopeConfig:
    """Rotary position embedding; `kind` is one of `ROPE_KINDS` (Hugging Face names).

    `original_max_position` is the context before scaling. `attention_factor` (yarn) multiplies the rotations; None:
    what `factor`, `mscale` and `mscale_all_dim` give.
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True


def needs_transformers(raw: Mapping[str, Any]) -> bool:
    """Whether the positions are of a kind that only `transformers` has: longrope, or heads turned in part."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        return False
    part = scaling.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    return (scaling.get("rope_type") or scaling.get("type")) == "longrope" or part not in (None, 1, 1.0)


def read_rope(raw: Mapping[str, Any], folder: Path) -> RopeConfig:
    """From `rope_parameters`, or `rope_scaling` and `rope_theta` of older files. Raises ModelLoadError, TypeError."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise TypeError(f"rope_parameters is {scaling!r}, not an object")
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind not in ROPE_KINDS:
        raise ModelLoadError(
            f"The model in {folder} scales its positions by {kind!r}, which this engine does not have",
            cause=f"supported: {', '.join(ROPE_KINDS)}",
        )
    context = int(raw.get("max_position_embeddings", 8192))
    theta = scaling.get("rope_theta") or raw.get("rope_theta") or 10_000.0
    original = raw.get("original_max_position_embeddings") or scaling.get("original_max_position_embeddings") or context
    rope = RopeConfig(
        theta=float(theta),
        kind=kind,
        factor=float(scaling.get("factor") or (context / int(original) if kind == "yarn" else 1.0)),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_position=context if kind == "dynamic" else int(original),
        attention_factor=None if scaling.get("attention_factor") is None else float(scaling["attention_factor"]),
        beta_fast=float(scaling.get("beta_fast") or 32),
        beta_slow=float(scaling.get("beta_slow") or 1),
        mscale=float(scaling.get("mscale") or 0),
        mscale_all_dim=float(scaling.get("mscale_all_dim") or 0),
        truncate=bool(scaling.get("truncate", True)),
    )
    if min(rope.theta, rope.factor, rope.original_max_position) <= 0:
        raise ValueError("rope_theta, factor and the original context must be positive")
    return rope


def reach(rope: RopeConfig, max_position: int) -> int:
    """The context that the scaling gives to a model whose `config.json` says `max_position_embeddings`."""
    if rope.kind == "dynamic":
        return int(max_position * rope.factor)
    if rope.kind == "yarn":
        return max(max_position, int(rope.original_max_position * rope.factor))
    return max_position
