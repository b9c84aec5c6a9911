"""Creates embedding methods by name, and says what each one is and needs."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EmbeddingMethod:
    """What `list_embedding_models` tells of a method."""

    display_name: str
    description: str
    requires_api_key: bool
    requires_download: bool
    default_dimension: int | None
    examples: tuple[str, ...]


_METHODS = {
    "hash": EmbeddingMethod(
        display_name="Feature hashing",
        description="lexical vectors from words and character n-grams: instant, offline, no model",
        requires_api_key=False,
        requires_download=False,
        default_dimension=384,
        examples=("hash",),
    ),
    "hf": EmbeddingMethod(
        display_name="Hugging Face folder",
        description="any BERT-family model in Hugging Face format: mean or CLS pooling, normalised, runs locally",
        requires_api_key=False,
        requires_download=True,
        default_dimension=None,
        examples=("BAAI/bge-small-zh-v1.5", "sentence-transformers/all-MiniLM-L6-v2"),
    ),
}


class EmbeddingFactory:
    """Creates an embedding method by name."""

    @staticmethod
    def create(method: str, **options: Any) -> BaseEmbedding:
        """Return the embedder of a method.

        Options: `hash` takes `dim` (384); `hf` takes `model` (a folder, or a name found in the local Hugging Face
        cache), `pooling` ("mean" or "cls"), `device`, `max_length`, `batch_tokens`.

        Raises ConfigError for an unknown method (naming the nearest) or option, ModelError where a model cannot be
        found, read or run.
        """
        _check_known(method)
        try:
            return _build(method, options)
        except TypeError as error:
            raise ConfigError(
                f"The embedding method {method!r} does not take these options",
                cause=str(error).replace("__init__()", method),
                hint=f'help(EmbeddingFactory.create)  or  EmbeddingFactory.create("{method}")',
            ) from error

    @staticmethod
    def list_models() -> dict[str, dict[str, Any]]:
        """Return what `list_embedding_models` returns."""
        return list_embedding_models()

    @staticmethod
    def check_availability(method: str, **options: Any) -> dict[str, str]:
        """Return {"status", "message"}: status is "available", "cached", "needs_download" or "unavailable".

        Raises ConfigError for an unknown method.
        """
        _check_known(method)
        if method == "hash":
            return {"status": "available", "message": "Built in: needs neither model nor network."}
        missing = [package for package in ("torch", "transformers") if find_spec(package) is None]
        if missing:
            return {
                "status": "unavailable",
                "message": f"Needs {' and '.join(missing)}:  pip install 'sage-stack[hf]'",
            }
        return _hf_availability(options.get("model"))


def get_embedding_model(method: str, **options: Any) -> BaseEmbedding:
    """Return the embedder of a method; the same as `EmbeddingFactory.create`."""
    return EmbeddingFactory.create(method, **options)


def list_embedding_models() -> dict[str, dict[str, Any]]:
    """Return {method: display_name, description, requires_api_key, requires_download, default_dimension, examples}."""
    return {
        name: {
            "display_name": method.display_name,
            "description": method.description,
            "requires_api_key": method.requires_api_key,
            "requires_download": method.requires_download,
            "default_dimension": method.default_dimension,
            "examples": list(method.examples),
        }
        for name, method in _METHODS.items()
    }


def _check_known(method: str) -> None:
    """Raise ConfigError unless `method` is one of ours."""
    if method in _METHODS:
        return
    near = get_close_matches(str(method).lower(), _METHODS, n=1, cutoff=0.4)
    raise ConfigError(
        f"There is no embedding method {method!r}",
        cause=f"Known methods: {', '.join(_METHODS)}.",
        hint=f'EmbeddingFactory.create("{near[0] if near else "hash"}")',
    )


def _build(method: str, options: dict[str, Any]) -> BaseEmbedding:
    """Import a method's module and create its embedder."""
    if method == "hash":
        from sage.common.components.sage_embedding.hashing import HashEmbedding

        return HashEmbedding(**options)
    from sage.common.components.sage_embedding.hf import HFEmbedding

    return HFEmbedding(**options)


def _hf_availability(model: str | None) -> dict[str, str]:
    """Return whether a Hugging Face model can be loaded without the network."""
    if model is None:
        return {"status": "available", "message": "Name a model folder:  model=PATH"}
    from sage.common.components.sage_embedding.hf_folder import locate

    folder = locate(str(model))
    if folder is None:
        return {"status": "needs_download", "message": f"{model} is neither a folder nor in the Hugging Face cache."}
    kind = "available" if Path(str(model)).is_dir() else "cached"
    return {"status": kind, "message": f"Found in {folder}"}
