"""Fetch a model into the local Hugging Face cache, as the engine can read it.

Takes the name of any causal language model; `sshleifer/tiny-gpt2`, a few megabytes for tests, unless told. The engine
reads safetensors and `tokenizer.json` only. Where a repository has older files instead, they are converted here, on
your machine: pickled weights with PyTorch's loader that runs no code, tokenizers with `transformers`.
"""

import argparse
import sys
from pathlib import Path

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
NETWORK = "Is there a network? HF_ENDPOINT may name a mirror, HF_TOKEN a key for models that ask for one."


def fetch(name: str) -> Path:
    """The folder of a model in the cache, downloaded where it is not there yet."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(name, allow_patterns=FILES))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(name, allow_patterns=["pytorch_model*.bin", *FILES])
    return folder


def convert(folder: Path) -> list[str]:
    """Write what the engine reads and the folder lacks; what was written."""
    written = []
    if not any(folder.glob("*.safetensors")):
        written += convert_weights(folder)
    if not (folder / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        written.append("tokenizer.json")
    return written


def convert_weights(folder: Path) -> list[str]:
    """Pickled weights as safetensors; matrices that several names share are written for each."""
    import torch
    from safetensors.torch import save_file

    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        sys.exit(f"{folder} holds no weights")
    tensors = {}
    for file in files:
        tensors.update(torch.load(file, map_location="cpu", weights_only=True))
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, folder / "model.safetensors")
    return ["model.safetensors"]


def main() -> None:
    """Fetch, convert, say where it is."""
    parser = argparse.ArgumentParser(description="Fetch a model for the engine.")
    parser.add_argument("model", nargs="?", default="sshleifer/tiny-gpt2", help="a Hugging Face name, or a folder")
    name = parser.parse_args().model
    try:
        folder = Path(name) if Path(name).is_dir() else fetch(name)
    except Exception as error:  # the library raises a dozen kinds; each says what happened
        sys.exit(f"Cannot fetch {name}: {error}\n{NETWORK}")
    try:
        converted = convert(folder)
    except Exception as error:  # torch's, safetensors' and transformers' own kinds
        sys.exit(f"Cannot convert {folder}: {error}")
    for written in converted:
        print(f"converted: {written}")
    print(f"{name} is in {folder}\nTry it:  sage-engine --model {name}")


if __name__ == "__main__":
    main()
