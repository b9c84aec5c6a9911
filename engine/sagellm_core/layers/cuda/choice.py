"""Which kernel attends for prompts on this device: those that are installed and right are timed, the quickest stays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sagellm_core.layers.attention import AttentionSpec
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.measure import Timer, fastest
from sagellm_core.layers.cuda.metadata import Pieces, upload
from sagellm_core.layers.cuda.prompts import FlashInferPrompts, PromptKernel, TritonPrompts, VarlenPrompts
from sagellm_core.models.config import ModelConfig

OURS = "triton"
_HALVES = (torch.float16, torch.bfloat16)
_PROMPTS, _TOKENS = 4, 1024
_TOLERANCE = 2e-2
_log = logging.getLogger(__name__)


def installed(device: torch.device, dtype: torch.dtype) -> dict[str, PromptKernel]:
    """The kernels that there are, by name; others than ours take 16-bit types alone."""
    kernels: dict[str, PromptKernel] = {OURS: TritonPrompts()}
    if dtype in _HALVES and VarlenPrompts.is_installed():
        kernels["torch varlen"] = VarlenPrompts()
    if dtype in _HALVES and FlashInferPrompts.is_installed():
        kernels["flashinfer"] = FlashInferPrompts(device)
    return kernels


def best_attention(
    model: ModelConfig,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    processors: int,
    timer: Timer | None,
) -> TritonPagedAttention:
    """The attention of a GPU, with the prompt kernel that is quickest there; without a timer, with ours."""
    attention = TritonPagedAttention(block_size, device, model.num_kv_heads, processors)
    kernels = installed(device, dtype)
    if timer is not None and len(kernels) > 1:
        spec = AttentionSpec(model.num_heads, model.num_kv_heads, model.head_dim, model.head_dim**-0.5)
        attention.prompts = kernels[choose(kernels, spec, block_size, dtype, device, timer)]
    return attention


def choose(
    kernels: Mapping[str, PromptKernel],
    spec: AttentionSpec,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    timer: Timer,
    tokens: int = _TOKENS,
) -> str:
    """The name of the quickest kernel whose results are ours, on a few prompts of `tokens` tokens."""
    each = -(-tokens // block_size)
    shape = (2, _PROMPTS * each, block_size, spec.num_kv_heads, spec.head_dim)
    cache = torch.randn(shape, device=device).to(dtype)
    query = torch.randn((_PROMPTS * tokens, spec.num_heads, spec.head_dim), device=device).to(dtype)
    pieces = _prompts(tokens, each, device)
    expected = torch.empty_like(query)
    kernels[OURS](query, cache, expected, pieces, spec)

    def work(name: str) -> Callable[[], None]:
        out = torch.empty_like(query)
        kernels[name](query, cache, out, pieces, spec)
        _check(out, expected, name)
        return lambda: kernels[name](query, cache, out, pieces, spec)

    candidates: dict[str, Callable[[], None]] = {}
    for name in kernels:
        try:
            candidates[name] = work(name)
        except Exception as error:  # whatever a library's kernels raise on a shape that they do not have
            _log.info("%s is out: %s", name, error)
    return fastest(candidates, timer)


def _check(found: Tensor, expected: Tensor, name: str) -> None:
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    if not error <= _TOLERANCE:
        raise RuntimeError(f"{name} differs from {OURS} by {float(error):.2g}")


def _prompts(tokens: int, blocks: int, device: torch.device) -> Pieces:
    counts = [tokens] * _PROMPTS
    starts = [tokens * index for index in range(_PROMPTS)]
    first, new, tables = upload([starts, counts, list(range(_PROMPTS * blocks))], device)
    return Pieces(first, new, new, tables.view(_PROMPTS, blocks), starts, counts, counts)
