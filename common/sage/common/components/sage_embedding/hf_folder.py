"""Reads what a Hugging Face embedding folder says about itself, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sage.common.errors import ModelError
from sage.common.hub_cache import cached_snapshot

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """Where the model stands and how its authors pool and truncate."""

    path: Path
    pooling: Pooling
    max_length: int
    model_type: str


def locate(model: str) -> Path | None:
    """Return the folder of a model: the path itself, or its snapshot in the local Hugging Face cache."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        return None
    return cached_snapshot(model)


def read_settings(model: str, pooling: str | None = None, max_length: int | None = None) -> FolderSettings:
    """Return the settings of a model folder; arguments win over what the folder says.

    Pooling comes from sentence-transformers' `modules.json` and `1_Pooling/config.json` where they are, and is the mean
    otherwise. Raises ModelError, with the next step, for a missing path or a folder that holds no encoder model.
    """
    path = locate(model)
    if path is None:
        raise ModelError(
            f"There is no embedding model at {model}",
            cause="It is neither a folder on this machine nor a model in the Hugging Face cache.",
            hint=f"hf download {model if model.count('/') == 1 else 'BAAI/bge-small-en-v1.5'}",
        )
    config = _read_config(path)
    if pooling not in (None, "mean", "cls"):
        raise ModelError(f"There is no pooling {pooling!r}", cause="Known: mean, cls.", hint='pooling="mean"')
    chosen: Pooling = "cls" if (pooling or _folder_pooling(path)) == "cls" else "mean"
    limit = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        limit -= 2  # these count positions from the padding index + 1
    wanted = max_length or _load(path / "sentence_bert_config.json").get("max_seq_length") or limit
    return FolderSettings(path, chosen, max(1, min(int(wanted), limit)), str(config["model_type"]))


def _read_config(path: Path) -> dict[str, Any]:
    """Return config.json of an encoder folder with weights; raises ModelError where it is none."""
    config: dict[str, Any] = _load(path / "config.json")
    if "model_type" not in config:
        raise ModelError(
            f"{path} is not a model folder",
            cause="It has no readable config.json with a model_type.",
            hint=f"ls {path}",
        )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no weights that SAGE loads",
            cause="Only safetensors files are read; pickled weights (pytorch_model.bin) can run code when opened.",
            hint="Convert them once with transformers: model.save_pretrained(folder)",
        )
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model")):
        raise ModelError(f"{path} has no tokenizer", cause="tokenizer.json is missing.", hint=f"ls {path}")
    return config


def _folder_pooling(path: Path) -> Pooling:
    """Return the pooling that sentence-transformers' files name; the mean where there are none."""
    modules = _load(path / "modules.json")
    listed = modules if isinstance(modules, list) else []
    folder = next((row.get("path") for row in listed if str(row.get("type", "")).endswith("Pooling")), "1_Pooling")
    settings = _load(path / str(folder) / "config.json")
    if settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls":
        return "cls"
    other = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    if other and "pooling_mode_mean_tokens" not in other:
        raise ModelError(
            f"{path} pools in a way that SAGE does not know",
            cause=f"Its 1_Pooling/config.json asks for {', '.join(other)}.",
            hint='Choose one yourself: EmbeddingFactory.create("hf", model=..., pooling="mean")',
        )
    return "mean"


def _load(path: Path) -> Any:
    """Return a JSON file's content, or an empty dict where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
