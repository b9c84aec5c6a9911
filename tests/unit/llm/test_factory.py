"""The factory: which methods there are, and what a wrong name gets."""

import os
import subprocess
import sys

import pytest

from sage.common.components import sage_embedding
from sage.common.components.sage_embedding import (
    BaseEmbedding,
    EmbeddingFactory,
    EmbeddingProtocol,
    HashEmbedding,
    get_embedding_model,
    list_embedding_models,
)
from sage.common.errors import ConfigError


@pytest.mark.spec("E10")
def test_every_method_is_listed() -> None:
    methods = list_embedding_models()
    assert sorted(methods) == [
        "bedrock",
        "cohere",
        "hash",
        "hf",
        "jina",
        "nvidia_openai",
        "ollama",
        "openai",
        "siliconcloud",
        "zhipu",
    ]
    assert EmbeddingFactory.list_models() == methods
    for info in methods.values():
        assert set(info) == {
            "display_name",
            "description",
            "requires_api_key",
            "requires_download",
            "default_dimension",
            "examples",
        }
    assert [name for name, info in methods.items() if not info["requires_api_key"]] == ["hash", "hf", "ollama"]


@pytest.mark.spec("E10")
@pytest.mark.parametrize(("wrong", "near"), [("hahs", "hash"), ("HF", "hf"), ("nothing-like-it", "hash"), ("", "hash")])
def test_an_unknown_method_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EmbeddingFactory.create(wrong)
    assert f'create("{near}")' in caught.value.hint
    assert "hash, hf" in caught.value.cause


def unmeasured() -> dict[str, str]:
    """The environment without what makes a child measure its coverage, which loads modules of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="does not take these options") as caught:
        EmbeddingFactory.create("hash", dims=3)
    assert "dims" in caught.value.cause


def test_get_embedding_model_is_the_same() -> None:
    embedder = get_embedding_model("hash", dim=16)
    assert isinstance(embedder, HashEmbedding)
    assert isinstance(embedder, BaseEmbedding)
    assert isinstance(embedder, EmbeddingProtocol)


def test_availability() -> None:
    assert EmbeddingFactory.check_availability("hash")["status"] == "available"
    assert EmbeddingFactory.check_availability("hf", model="no-such/model")["status"] == "needs_download"
    with pytest.raises(ConfigError):
        EmbeddingFactory.check_availability("hush")


def test_the_surface_is_complete_sorted_and_lazy() -> None:
    assert sage_embedding.__all__ == sorted(sage_embedding.__all__)
    for name in sage_embedding.__all__:
        assert getattr(sage_embedding, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = sage_embedding.nothing  # type: ignore[attr-defined]
    code = (
        "import sys, sage.llm, sage.common.components.sage_embedding;"
        "from sage.llm import UnifiedInferenceClient;"
        "from sage.common.components.sage_embedding import EmbeddingFactory;"
        "heavy = {'torch', 'transformers', 'httpx', 'pydantic', 'aiohttp', 'uvicorn', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=unmeasured())


@pytest.mark.parametrize("package", ["gateway", "embedding"])
def test_a_daemon_loads_nothing_heavy(package: str) -> None:
    code = (
        f"import sys; from sage.llm.{package} import create_app, main; import uvicorn, uvloop, httptools;"
        "heavy = {'torch', 'transformers', 'httpx', 'pydantic', 'starlette', 'fastapi', 'sqlite3'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=unmeasured())
