"""The local Hugging Face cache: one way to find a model in it, for the engine and for embeddings (SPEC E7)."""

import os
from pathlib import Path

import pytest

from sage.common.hub_cache import cached_snapshot


def snapshot(cache: Path, revision: str, age: float) -> Path:
    folder = cache / "models--org--tiny" / "snapshots" / revision
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    return folder


@pytest.mark.spec("E7", "E10")
def test_main_is_taken_else_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cached_snapshot("org/tiny") is None
    old, new = snapshot(tmp_path, "abc", 50), snapshot(tmp_path, "def", 10)
    assert cached_snapshot("org/tiny") == new
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text("abc\n")
    assert cached_snapshot("org/tiny") == old
    assert cached_snapshot("../org/tiny") is None
