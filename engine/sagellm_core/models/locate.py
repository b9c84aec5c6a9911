"""From what a user typed as a model to a folder on this machine. Never downloads, never imports torch."""

from __future__ import annotations

from pathlib import Path

from sage.common.hub_cache import cached_snapshot
from sagellm_core.errors import ModelLoadError

DEFAULT_MODEL = "sage-builtin"
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
    for needed, what in (("config.json", "a Hugging Face model"), ("tokenizer.json", "a usable model")):
        if not (folder / needed).is_file():
            raise ModelLoadError(
                f"{name} is not {what} folder",
                cause=f"{folder / needed} is missing",
                hint="Use the built-in model:  --model sage-builtin",
            )
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{name} has no weights", cause=f"no *.safetensors file in {folder}")
    return folder
