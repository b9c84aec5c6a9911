"""Which model is meant: folders, hub names in the cache, the built-in one; all else fails before anything starts."""

import pathlib

import pytest

from sage.cli.stack.models import Model, find_embedding_model, find_llm_model
from sage.common.errors import ModelError


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A model cache with one model in it; the current folder is empty."""
    hub = tmp_path / "hub"
    make_model(hub / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return hub


def make_model(folder: pathlib.Path, *, config: bool = True, weights: str = "model.safetensors") -> pathlib.Path:
    folder.mkdir(parents=True)
    if config:
        (folder / "config.json").write_text("{}")
    if weights:
        (folder / weights).write_bytes(b"")
    return folder


@pytest.mark.spec("E9")
@pytest.mark.parametrize("name", [None, "sage-builtin", "builtin"])
def test_the_builtin_model_needs_no_folder(name: str | None) -> None:
    assert find_llm_model(name) == Model("", "sage-builtin")


def test_a_folder_is_taken_by_any_spelling(tmp_path: pathlib.Path) -> None:
    folder = make_model(pathlib.Path("tiny"))
    assert find_llm_model("tiny") == find_llm_model("./tiny") == find_llm_model("tiny/")
    assert find_llm_model("tiny") == Model(str(folder.resolve()), "tiny")


def test_a_hub_name_in_the_cache_becomes_its_snapshot(cache: pathlib.Path) -> None:
    snapshot = cache / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "abc"
    assert find_llm_model("Qwen/Qwen2.5-0.5B") == Model(str(snapshot), "Qwen/Qwen2.5-0.5B")


def test_embedding_models() -> None:
    folder = make_model(pathlib.Path("minilm"))
    assert find_embedding_model(None) == find_embedding_model("hash") == Model("hash", "hash")
    assert find_embedding_model("minilm") == find_embedding_model("hf:minilm")
    assert find_embedding_model("minilm") == Model(f"hf:{folder.resolve()}", "minilm")
    with pytest.raises(ModelError) as caught:
        find_embedding_model("./nothing")
    assert "--embedding-model" in caught.value.hint or "sage llm serve" in caught.value.hint


@pytest.mark.spec("X12")
def test_a_missing_folder_names_the_nearest_model_beside_it() -> None:
    make_model(pathlib.Path("models/llama-tiny"))
    with pytest.raises(ModelError, match="lama-tiny") as caught:
        find_llm_model("./models/lama-tiny")
    assert "llama-tiny" in caught.value.cause
    assert caught.value.hint == "sage llm serve --model models/llama-tiny"


def test_a_missing_folder_in_a_missing_folder() -> None:
    with pytest.raises(ModelError) as caught:
        find_llm_model("/no/such/place")
    assert "/no/such does not exist" in caught.value.cause


def test_a_folder_without_a_config_points_at_the_one_inside() -> None:
    make_model(pathlib.Path("outer/inner"))
    with pytest.raises(ModelError) as caught:
        find_llm_model("outer")
    assert "config.json" in caught.value.cause
    assert caught.value.hint.endswith("outer/inner")


@pytest.mark.parametrize(("weights", "said"), [("", "no weights"), ("pytorch_model.bin", "safetensors format")])
def test_a_folder_without_safetensors(weights: str, said: str) -> None:
    make_model(pathlib.Path("m"), weights=weights)
    with pytest.raises(ModelError) as caught:
        find_llm_model("m")
    assert said in caught.value.cause


def test_a_file_is_no_model() -> None:
    pathlib.Path("model.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file"):
        find_llm_model("model.gguf")


def test_a_misspelt_hub_name_names_the_cached_one() -> None:
    with pytest.raises(ModelError) as caught:
        find_llm_model("Qwen/Qwen2.5-05B")
    assert caught.value.hint == "Did you mean:  sage llm serve --model Qwen/Qwen2.5-0.5B"


def test_a_hub_name_that_is_not_here_says_how_to_fetch_it() -> None:
    with pytest.raises(ModelError) as caught:
        find_llm_model("BAAI/bge-m3")
    assert "hf download BAAI/bge-m3" in caught.value.hint
