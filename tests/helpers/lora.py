"""LoRA adapters with random weights in PEFT's format, and models into which one is merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RANK = 4
MODULES = {
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "other": (
        *(f"self_attn.{part}_proj" for part in "qkvo"),
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
    ),
}


def write_adapter(
    folder: Path,
    base: Path,
    *,
    modules: tuple[str, ...] = MODULES["other"],
    seed: int = 1,
    size: float = 0.2,
    **changes: Any,
) -> Path:
    """An adapter of rank 4 for these modules of every layer of the model in `base`."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "bias": "none", "target_modules": list(modules)}
    (folder / "adapter_config.json").write_text(json.dumps(settings | changes))
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in _shapes(base, modules).items():
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, inputs, generator=draw) * size
        tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, RANK, generator=draw) * size
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged(folder: Path, base: Path, adapter: Path) -> Path:
    """The model in `base` with `adapter` added to its weights: W + scale * B A."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder, dirs_exist_ok=True)
    weights = load_file(base / "model.safetensors")
    pairs = load_file(adapter / "adapter_model.safetensors")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / (settings["r"] ** (0.5 if settings.get("use_rslora") else 1))
    for key in [key for key in pairs if key.endswith("lora_A.weight")]:
        name = key.removeprefix("base_model.model.").replace("lora_A.", "")
        change = scale * pairs[key.replace("lora_A", "lora_B")] @ pairs[key]
        weights[name] = weights[name] + (change.t() if _is_transposed(base) else change)
    save_file(
        {name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def _shapes(base: Path, modules: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    wanted = tuple(f"{module}.weight" for module in modules)
    found = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(wanted)}
    turn = -1 if _is_transposed(base) else 1
    return {name: (shape[::turn][0], shape[::turn][1]) for name, shape in found.items()}


def _is_transposed(base: Path) -> bool:
    return bool(json.loads((base / "config.json").read_text())["model_type"] == "gpt2")
