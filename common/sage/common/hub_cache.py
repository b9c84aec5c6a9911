"""Models that Hugging Face's own tools have fetched to this machine. Never downloads."""

from __future__ import annotations

import os
from pathlib import Path


def cached_snapshot(name: str) -> Path | None:
    """Return the folder of a model ("owner/name") in the local cache; None where it is not there.

    It is the revision that `main` stood for when it was fetched last, else the newest one with a config.json.
    """
    repository = _cache() / ("models--" + name.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        revision = ""
    main = repository / "snapshots" / revision
    if revision and main.is_dir():
        return main
    found = [folder for folder in (repository / "snapshots").glob("*") if (folder / "config.json").is_file()]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def _cache() -> Path:
    """Return the cache's folder, as huggingface_hub finds it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser() / "hub"
