"""From what a user typed as a model to a folder on this machine. Never downloads, never imports torch."""

from __future__ import annotations

from pathlib import Path

from sage.common.hub_cache import cached_snapshot
from sagellm_core.errors import ModelLoadError

DEFAULT_MODEL = "sage-builtin"
_BUILTIN_HINT = "Use the built-in model:  --model sage-builtin"
_SLOW_TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
BUILTIN_NAMES = frozenset({DEFAULT_MODEL, "builtin", "default"})


def locate_model(name: str) -> Path:
    """The folder of a model: a path, a Hugging Face name in the local cache, or the built-in model.

    Raises ModelLoadError with the next command when there is none, or when it lacks its files.
    """
    if name in BUILTIN_NAMES:
        return _checked(_builtin(), name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path.resolve(), name)
    if path.is_file():
        raise ModelLoadError(f"{name} is a file, not a model folder", hint=f"Name its folder:  --model {path.parent}")
    cached = cached_snapshot(name)
    if cached is not None:
        return _checked(cached, name)
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    raise ModelLoadError(
        f"No model {name!r} on this machine",
        cause="no such folder" + (", and it is not in the Hugging Face cache" if looks_like_hub else ""),
        hint=f"Download it:  hf download {name}" if looks_like_hub else "Use the built-in model:  --model sage-builtin",
    )


def _builtin() -> Path:
    from sagellm_core import builtin

    return builtin.path()


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        is_adapter = (folder / "adapter_config.json").is_file()
        raise ModelLoadError(
            f"{name} is not a Hugging Face model folder",
            cause=f"{folder / 'config.json'} is missing" + (", it holds a LoRA adapter" if is_adapter else ""),
            hint="Name its base model, and the adapter in lora_adapters" if is_adapter else _BUILTIN_HINT,
        )
    if not (folder / "tokenizer.json").is_file():
        slow = next((file for file in _SLOW_TOKENIZERS if (folder / file).is_file()), "")
        raise ModelLoadError(
            f"{name} is not a usable model folder",
            cause=f"{folder / 'tokenizer.json'} is missing" + (f"; {slow} has to be converted" if slow else ""),
            hint=_convert_tokenizer(folder) if slow else _BUILTIN_HINT,
        )
    if not any(folder.glob("*.safetensors")):
        pickled = next((path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind)), "")
        raise ModelLoadError(
            f"{name} has no weights",
            cause=f"no *.safetensors file in {folder}"
            + (f"; {pickled} may run code and is not read" if pickled else ""),
            hint=_convert_weights(folder) if pickled else "",
        )
    return folder


def _convert_tokenizer(folder: Path) -> str:
    return f'Convert it:  python -c "{_resave("AutoTokenizer", folder)}"'


def _convert_weights(folder: Path) -> str:
    return f'Convert them, if you trust their author:  python -c "{_resave("AutoModelForCausalLM", folder)}"'


def _resave(kind: str, folder: Path) -> str:
    return f"from transformers import {kind} as T; p = {str(folder)!r}; T.from_pretrained(p).save_pretrained(p)"
