"""Compile every GPU kernel for a Hopper GPU as the engine would launch it, on a machine without one.

Run as a program: prints a JSON object, kernel and variant to what the compiler says of it. Launches are caught, their
arguments turned into a signature, and that is compiled to machine code by the assembler that triton brings.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

HOPPER = GPUTarget("cuda", 90, 32)
RESULTS: dict[str, dict[str, int]] = {}
LABEL = [""]


def tool(name: str, *arguments: str) -> str:
    """What one of the tools that triton brings says."""
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def usage(cubin: bytes) -> dict[str, int]:
    """Registers a thread, bytes of stack frame; wide loads and stores before the launch waits for the one before it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = tool("cuobjdump", "-res-usage", file.name)
        code = tool("nvdisasm", "-c", file.name)
    before, _, after = code.partition("ACQBULK")
    counts = {}
    for name, key in (("registers", "REG"), ("stack", "STACK")):
        found = re.search(rf"\b{key}:(\d+)", text)
        counts[name] = int(found[1]) if found else -1
    ahead = {"loads_ahead": before.count("LDG.E.128"), "stores_ahead": before.count("STG")} if after else {}
    return counts | ahead | {"wide_loads": code.count("LDG.E.128") + code.count("LDGSTS.E.BYPASS.128")}


def compile_launch(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """In place of a launch."""
    names = [parameter.name for parameter in self.params]
    constants = {parameter.name for parameter in self.params if parameter.is_constexpr}
    bound = dict(zip(names, args, strict=False)) | {name: kwargs.pop(name) for name in names if name in kwargs}
    signature = {name: "constexpr" if name in constants else mangle_type(value, True) for name, value in bound.items()}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if isinstance(bound[name], torch.Tensor) or (isinstance(bound[name], int) and bound[name] % 16 == 0)
        if name not in constants
    }
    values = {(index,): bound[name] for index, name in enumerate(names) if signature[name] == "constexpr"}
    source = ASTSource(self, signature, values, attributes)
    made = triton.compile(source, target=HOPPER, options=kwargs)
    text = made.asm["ptx"]
    RESULTS[f"{self.__name__} {LABEL[0]}"] = usage(made.asm["cubin"]) | {
        "wgmma": text.count("wgmma.mma_async"),
        "async_copies": text.count("cp.async"),
        "shared": made.metadata.shared,
    }


def launch_all(heads: int, kv_heads: int, head_dim: int, hidden: int, inner: int, vocab: int, variants: int) -> None:
    """Every launcher at the shapes of a model, in bfloat16 and with an 8-bit matrix; one variant each, or two."""
    from sagellm_core.layers.attention import AttentionSpec, HeadNorms
    from sagellm_core.layers.cuda import kernels
    from sagellm_core.layers.rope import StepRope

    def bf16(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16)

    def ints(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32)

    spec = AttentionSpec(heads, kv_heads, head_dim, 0.1)
    windowed = AttentionSpec(heads, kv_heads, head_dim, 0.1, 64)
    width = (heads + 2 * kv_heads) * head_dim
    cache = bf16(2, 9, 16, kv_heads, head_dim)
    rope = StepRope(bf16(64, 1, head_dim), bf16(64, 1, head_dim), ints(4))
    norms = HeadNorms(bf16(head_dim), bf16(head_dim), 1e-6)
    call = kernels.DecodeCall(ints(4), ints(4), ints(4, 16), ints(4))
    room = kernels.Partials.room(4, 8, spec, torch.device("cpu"))
    query = bf16(4, heads, head_dim)
    for label, each, head_norms in (("", spec, None), ("windowed, normed", windowed, norms))[:variants]:
        LABEL[0] = label
        kernels.rotate_and_store(bf16(4, width), rope, head_norms, ints(4), cache, query, each)
        tiles = kernels.PrefillTiles.of(each, cache)
        kernels.prefill(query, cache, query.clone(), ints(4, 2), ints(4), ints(4), ints(4), ints(4, 16), each, tiles)
        LABEL[0] = f"rotated {label}"
        kernels.decode_rotated(query, cache, call, room, each)
        LABEL[0] = f"fused {label}"
        kernels.decode_fused(bf16(4, width), rope, head_norms, cache, call, room, each, pdl=True)
    LABEL[0] = ""
    kernels.combine(room, call, query, pdl=True)
    kernels.add_norm(bf16(4, hidden), bf16(4, hidden), bf16(hidden), 1e-6, bf16(4, hidden), pdl=True)
    kernels.silu_mul(bf16(4, 2 * inner))
    kernels.argmax(bf16(4, vocab), ints(4))
    for rows in (1, 4)[:variants]:
        LABEL[0] = f"norm, bias, {rows} rows"
        kernels.few_rows(
            bf16(rows, hidden), bf16(width, hidden), bf16(rows, width), bias=bf16(width), norm=bf16(hidden), pdl=True
        )
        LABEL[0] = f"attention, residual, {rows} rows"
        splits = kernels.Partials.room(1, 8, spec, torch.device("cpu")) if rows == 1 else bf16(rows, heads * head_dim)
        kernels.few_rows(splits, bf16(hidden, heads * head_dim), bf16(rows, hidden), add=True, pdl=True)
        LABEL[0] = f"norm, gate, {rows} rows"
        kernels.few_rows(
            bf16(rows, hidden), bf16(2 * inner, hidden), bf16(rows, inner), norm=bf16(hidden), gated=True, pdl=True
        )
        LABEL[0] = f"8 bits, residual, {rows} rows"
        eight = torch.empty((hidden, inner), dtype=torch.float8_e4m3fn)
        kernels.few_rows(bf16(rows, inner), eight, bf16(rows, hidden), scales=torch.empty(hidden), add=True, pdl=True)


def launch_wide(head_dim: int, dtype: torch.dtype) -> None:
    """The attention of heads that are wider than usual."""
    from sagellm_core.layers.attention import AttentionSpec
    from sagellm_core.layers.cuda import kernels

    spec = AttentionSpec(8, 2, head_dim, 0.1)
    cache, query = torch.empty((2, 9, 16, 2, head_dim), dtype=dtype), torch.empty((4, 8, head_dim), dtype=dtype)
    four, table = torch.zeros(4, dtype=torch.int32), torch.zeros((4, 16), dtype=torch.int32)
    LABEL[0] = f"heads of {head_dim}, {dtype}"
    tiles = kernels.PrefillTiles.of(spec, cache)
    kernels.prefill(query, cache, query.clone(), torch.zeros_like(table), four, four, four, table, spec, tiles)
    room = kernels.Partials.room(4, 8, spec, torch.device("cpu"))
    kernels.decode_rotated(query, cache, kernels.DecodeCall(four, four, table, four), room, spec)


if __name__ == "__main__":
    JITFunction.run = compile_launch
    if len(sys.argv) > 2:
        launch_all(*(int(size) for size in sys.argv[1:]))
    else:
        for head_dim, dtype in ((128, torch.float32), (256, torch.bfloat16), (256, torch.float32)):
            launch_wide(head_dim, dtype)
    print(json.dumps(RESULTS))
