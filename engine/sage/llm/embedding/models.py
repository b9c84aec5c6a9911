"""From the `--model` of the command line to an embedder and the names it is served under."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.components.sage_embedding.factory import EmbeddingFactory, list_embedding_models
from sage.common.errors import ModelError


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An embedder, the name that `/v1/models` lists, and other names that clients may use."""

    embedder: BaseEmbedding
    name: str
    aliases: tuple[str, ...]


def load(model: str, name: str | None = None) -> ServedModel:
    """Return the model that `hash`, `hf:PATH`, a folder or a cached Hugging Face name stands for.

    Raises ModelError or ConfigError, with the next step, where there is none.
    """
    method, _, rest = model.partition(":")
    if model == "hash":
        return ServedModel(EmbeddingFactory.create("hash"), name or "hash", _others(name, "hash"))
    if method == "hf" and rest:
        return _from_folder(rest, name)
    if "/" in model or Path(model).expanduser().exists():
        return _from_folder(model, name)
    near = get_close_matches(model, list_embedding_models(), n=1, cutoff=0.4)
    raise ModelError(
        f"There is no embedding model {model!r}",
        cause="It is neither a method (hash, hf:PATH) nor a folder.",
        hint=f"sage llm serve --embedding-model {near[0] if near and near[0] != 'hf' else 'hash'}",
    )


def _from_folder(path: str, name: str | None) -> ServedModel:
    """Return the model of a folder, named like a Hugging Face id where it came as one, else like the folder."""
    embedder = EmbeddingFactory.create("hf", model=path)
    folder = Path(path).expanduser()
    known = folder.resolve().name if folder.exists() else path
    return ServedModel(embedder, name or known, _others(name, known, path))


def _others(name: str | None, *candidates: str) -> tuple[str, ...]:
    """Return the candidates that are not the name itself, each once."""
    return tuple(dict.fromkeys(one for one in candidates if one != name))
