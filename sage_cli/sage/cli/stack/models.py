"""From what a person calls a model to something a daemon can load; everything is checked before anything starts.

A model is a Hugging Face folder (``config.json`` and ``*.safetensors``), a hub name that is already in the cache on
this machine, or the built-in one. Nothing is downloaded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage.cli.suggest import nearest
from sage.common.errors import ModelError

BUILTIN = "sage-builtin"
HASH = "hash"


@dataclass(frozen=True, slots=True)
class Model:
    """``source`` is what the daemon's ``--model`` takes ("": its own default); ``name`` is its id in /v1/models."""

    source: str
    name: str


def find_llm_model(name: str | None) -> Model:
    """The built-in model, a folder (named as the folder) or a cached hub model (named as on the hub).

    Raises ModelError when it is not there, is not a model folder, or a hub name is not in the cache.
    """
    if name is None or name in (BUILTIN, "builtin"):
        return Model("", BUILTIN)
    folder, shown = _folder(name, "sage llm serve --model")
    return Model(str(folder), shown)


def find_embedding_model(name: str | None) -> Model:
    """The hash embedding, or a Hugging Face folder or cached hub model; raises as :func:`find_llm_model` does."""
    if name is None or name == HASH:
        return Model(HASH, HASH)
    folder, shown = _folder(name.removeprefix("hf:"), "sage llm serve --embedding-model")
    return Model(f"hf:{folder}", shown)


def _folder(name: str, command: str) -> tuple[Path, str]:
    """The folder that ``name`` means, and what to call the model."""
    path = Path(name).expanduser()
    if path.is_dir():
        folder = _checked(path.resolve(), command)
        return folder, folder.name
    if path.exists():
        raise ModelError(
            f"{name} is a file, not a model folder",
            cause="A model is a folder that holds config.json and *.safetensors.",
            hint=f"{command} {path.parent}",
        )
    if _looks_like_path(name):
        raise _no_such_folder(name, path, command)
    from sage.common.config.network import ensure_hf_mirror_configured

    ensure_hf_mirror_configured()
    cached = dict(cached_models())
    if name in cached:
        return _checked(cached[name], command), name
    raise _not_cached(name, cached, command)


def _looks_like_path(name: str) -> bool:
    """Whether a person means a folder: ``./x``, ``/x``, ``~/x``, ``a/b/c``; ``org/name`` and ``name`` are hub names."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or name.endswith("/")


def _checked(folder: Path, command: str) -> Path:
    if not (folder / "config.json").is_file():
        inner = sorted(child for child in folder.iterdir() if (child / "config.json").is_file())
        hint = f"{command} {inner[0]}" if inner else f"{command} FOLDER   (one that holds config.json)"
        raise ModelError(f"{folder} is not a model folder", cause="It has no config.json.", hint=hint)
    if not any(folder.glob("*.safetensors")):
        other = any(folder.glob("*.bin")) or any(folder.glob("*.gguf"))
        cause = "Its weights are not in the safetensors format." if other else "It holds no weights (*.safetensors)."
        raise ModelError(f"{folder} cannot be served", cause=cause, hint=f"{command} FOLDER   (with *.safetensors)")
    return folder


def _no_such_folder(name: str, path: Path, command: str) -> ModelError:
    parent = path.parent
    beside = [child.name for child in _folders(parent) if (child / "config.json").is_file()]
    match = nearest(path.name, beside) or beside[:1]
    cause = f"The folder {parent} does not exist either." if not parent.is_dir() else f"Looked in {parent.resolve()}."
    if beside:
        cause = f"{parent.resolve()} holds these models: {', '.join(sorted(beside)[:6])}"
    hint = f"{command} {parent / match[0]}" if match else "The built-in model needs no folder:  sage llm serve"
    return ModelError(f"There is no folder {name!r}", cause=cause, hint=hint)


def _not_cached(name: str, cached: dict[str, Path], command: str) -> ModelError:
    match = nearest(name, cached)
    if match:
        hint = f"Did you mean:  {command} {match[0]}"
    elif "/" in name:
        hint = f"Fetch it, then serve it:  hf download {name}  &&  {command} {name}"
    else:
        hint = f"A folder works too:  {command} ./path/to/{name}"
    known = f" It holds: {', '.join(sorted(cached)[:6])}." if cached else ""
    cause = f"It is neither a folder here nor in the model cache {hub_cache()}.{known}"
    return ModelError(f"The model {name!r} is not on this machine", cause=cause, hint=hint)


def hub_cache() -> Path:
    """Where Hugging Face keeps what it downloaded (``HF_HUB_CACHE`` > ``HF_HOME``/hub > ``~/.cache``)."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface") / "hub"


def cached_models() -> Iterator[tuple[str, Path]]:
    """Each model in the cache with its newest complete snapshot."""
    for folder in _folders(hub_cache()):
        if folder.name.startswith("models--"):
            snapshots = [s for s in _folders(folder / "snapshots") if (s / "config.json").is_file()]
            if snapshots:
                newest = max(snapshots, key=lambda snapshot: snapshot.stat().st_mtime)
                yield folder.name.removeprefix("models--").replace("--", "/"), newest


def _folders(parent: Path) -> list[Path]:
    try:
        return [child for child in parent.iterdir() if child.is_dir()]
    except OSError:
        return []
