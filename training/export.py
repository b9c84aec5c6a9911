"""Write a checkpoint as a Hugging Face folder, and read such a folder back."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training import plan
from training.model import Shape, TinyLlama
from training.tokenizer import BOS_ID, END_ID, PAD_ID

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def config_of(shape: Shape) -> dict[str, object]:
    """``config.json`` for ``LlamaForCausalLM``."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(shape), "head_dim": shape.head_dim,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": True, "bos_token_id": BOS_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID,
        "initializer_range": 0.02, "pretraining_tp": 1, "rope_scaling": None, "use_cache": True,
        "torch_dtype": "bfloat16",
    }  # fmt: skip


def export(model: TinyLlama, source: Path, folder: Path) -> None:
    """Write weights in bf16, configuration and the tokenizer files of ``source``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    generation = {"bos_token_id": BOS_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID, "do_sample": False,
                  "max_new_tokens": 64}  # fmt: skip
    for name, data in (("config.json", config_of(model.shape)), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).resolve() != (folder / name).resolve():
            shutil.copyfile(source / name, folder / name)


def export_run(run: Path, folder: Path) -> str:
    """Export a run's checkpoint; says from which step."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    model = TinyLlama(plan.SHAPE)
    model.load_state_dict(state["model"])
    export(model, run, folder)
    return f"step {state['step']}, {state['tokens']} tokens -> {folder}"


def load(folder: Path) -> TinyLlama:
    """The model of a folder that ``export`` wrote (any tied Llama without rope scaling), in fp32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(**{field.name: config[field.name] for field in fields(Shape)})
    model = TinyLlama(shape)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in weights.items()})
    return model.eval()


def main() -> None:
    """``python -m training.export RUN FOLDER``"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("folder", type=Path, help="where to write the Hugging Face folder")
    arguments = parser.parse_args()
    print(export_run(arguments.run, arguments.folder))


if __name__ == "__main__":
    main()
