"""Shape of a model that runs through `transformers`' own code, from its configuration class. Imports it when called."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from sagellm_core.errors import ModelLoadError
from sagellm_core.models.families import FAMILIES


def transformers(name: str, folder: Path) -> Any:
    """The library. Raises ModelLoadError that names the model which needs it, and how to install it."""
    try:
        return import_module("transformers")
    except ImportError as error:
        near = get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
        raise ModelLoadError(
            f"The model in {folder} has the architecture {name}, which this engine runs only with transformers",
            cause=f"without it: {', '.join(FAMILIES)}" + (f" (nearest: {near[0]})" if near else ""),
            hint="Install it:  pip install 'sage-stack[hf]'",
        ) from error


def read_shape(name: str, folder: Path) -> dict[str, Any]:
    """`config.json` under Llama's keys, with `transformers`' defaults.

    Raises ModelLoadError for an architecture that `transformers` does not know either, with the nearest name.
    """
    library = transformers(name, folder)
    _check_known(name, folder)
    try:
        whole = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = whole.get_text_config(decoder=True)
        return _under_llama_names(config)
    except ModelLoadError:
        raise
    except Exception as error:  # whatever a configuration class of the library raises is about this file
        raise ModelLoadError(f"{folder / 'config.json'} is not usable", cause=str(error)) from error


def _check_known(name: str, folder: Path) -> None:
    module = import_module("transformers.models.auto.modeling_auto")
    known: set[str] = set(FAMILIES)
    for entry in module.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        known.update((entry,) if isinstance(entry, str) else entry)
    if name in known:
        return
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    raise ModelLoadError(
        f"The model in {folder} has the architecture {name}, which this engine does not run",
        cause=f"nearest: {near[0]}" if near else "no causal language model of transformers has a name like it",
        hint="Try the built-in model:  sage-engine --model sage-builtin",
    )


def _under_llama_names(config: Any) -> dict[str, Any]:
    heads, hidden = config.num_attention_heads, config.hidden_size
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": hidden,
        "intermediate_size": getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", 4 * hidden),
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 1 if getattr(config, "multi_query", False) else kv_heads,
        "head_dim": getattr(config, "head_dim", None) or hidden // heads,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        "learned_positions": True,
    }
