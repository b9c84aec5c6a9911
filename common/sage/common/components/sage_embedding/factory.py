"""Creates embedding methods by name, and says what each one is and needs."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.components.sage_embedding.providers import PROVIDERS, Provider
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
} | {
    name: EmbeddingMethod(
        display_name=provider.display_name,
        description=provider.description,
        requires_api_key=bool(provider.key_variables),
        requires_download=provider.local,
        default_dimension=provider.dimensions[provider.model],
        examples=tuple(provider.dimensions),
    )
    for name, provider in PROVIDERS.items()
}


class EmbeddingFactory:
    """Creates an embedding method by name."""

    @staticmethod
    def create(method: str, **options: Any) -> BaseEmbedding:
        """Return the embedder of a method.

        Options: `hash` takes `dim` (384); `hf` takes `model` (a folder, or a name found in the local Hugging Face
        cache), `pooling` ("mean" or "cls"), `device`, `max_length`, `batch_tokens`. The services take `model`,
        `api_key` (else the provider's environment variable), `base_url`, `dimensions`, `batch_size`, `timeout`
        (seconds), `retries`, and their own: jina `task`, `truncate`; cohere and nvidia_openai `input_type`, `truncate`;
        ollama `truncate`, `keep_alive`; openai `user`; bedrock `region`, `aws_access_key_id`, `aws_secret_access_key`,
        `aws_session_token`. Nothing is sent before the first text is embedded.

        Raises ConfigError for an unknown method (naming the nearest) or option and for a missing key, ModelError where
        a model cannot be found, read or run.
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
        """Return {"status", "message"}: "available", "cached", "needs_api_key", "needs_download" or "unavailable".

        Takes the options of `create`. Only `ollama` is asked over the network, for at most a second; of the other
        services it is told whether there is a key. Raises ConfigError for an unknown method.
        """
        _check_known(method)
        if method in PROVIDERS:
            return _service_availability(PROVIDERS[method], options)
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
    if method == "bedrock":
        from sage.common.components.sage_embedding.bedrock import BedrockEmbedding

        return BedrockEmbedding(**options)
    if method in PROVIDERS:
        from sage.common.components.sage_embedding.remote import RemoteEmbedding

        return RemoteEmbedding(method, **options)
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


def _service_availability(provider: Provider, options: dict[str, Any]) -> dict[str, str]:
    """Return whether a service can be asked: its key is there, or (a local one) it answers and has the model."""
    if provider.local:
        return _local_availability(provider, options)
    try:
        _build(provider.method, options)
    except ConfigError as error:
        status = "needs_api_key" if error.details.get("missing") == "key" else "unavailable"
        return {"status": status, "message": f"{error}  {error.hint}".rstrip()}
    return {"status": "available", "message": f"{provider.display_name} can be asked; nothing was sent."}


def _local_availability(provider: Provider, options: dict[str, Any]) -> dict[str, str]:
    """Return whether an Ollama server answers and has the model."""
    from sage.common.components.sage_embedding.remote import find_base_url, served_models

    url, model = find_base_url(provider, options.get("base_url")), str(options.get("model") or provider.model)
    models = served_models(url)
    if models is None:
        return {"status": "unavailable", "message": f"No Ollama server answers at {url}:  ollama serve"}
    if not {model, f"{model}:latest"} & set(models):
        return {"status": "needs_download", "message": f"The server at {url} lacks it:  ollama pull {model}"}
    return {"status": "available", "message": f"{model} is served at {url}"}
