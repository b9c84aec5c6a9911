"""The `hash` method: what its vectors are like, and what they find."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.components.sage_embedding import EmbeddingClientAdapter, EmbeddingFactory, HashEmbedding
from sage.common.components.sage_embedding.features import stem, tokenize
from sage.common.errors import ConfigError

EMBEDDER = HashEmbedding()


def near(left: str, right: str) -> float:
    """The cosine of two texts."""
    one, other = EMBEDDER.embed_array([left, right])
    return float(one @ other)


@pytest.mark.spec("E10")
@given(st.lists(st.text(max_size=60), max_size=6))
@settings(max_examples=60, deadline=None)
def test_vectors_have_norm_one_and_do_not_depend_on_their_batch(texts: list[str]) -> None:
    together = EMBEDDER.embed_array(texts)
    assert together.shape == (len(texts), 384)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(EMBEDDER.embed_array([text])[0], vector)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5) or not vector.any()


@pytest.mark.spec("E10")
def test_another_process_computes_the_same_vector() -> None:
    code = (
        "from sage.common.components.sage_embedding import HashEmbedding;"
        "print(HashEmbedding(dim=64).embed('The gateway listens on port 8889.'))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{HashEmbedding(dim=64).embed('The gateway listens on port 8889.')}\n"}


@pytest.mark.spec("E10")
def test_it_knows_words_and_no_meaning() -> None:
    """What the manual says of it: other words for the same thing are no nearer than any other words."""
    assert abs(near("halt", "stop")) < 0.15
    assert abs(near("folder", "directory")) < 0.15


@pytest.mark.spec("E10")
def test_words_count_more_than_letters_and_function_words_hardly() -> None:
    assert near("the gateway port", "port of a gateway") > 0.8
    assert near("how do I serve models", "serving a model") > 0.6
    assert near("stop the server", "the stop list of the author") < 0.6
    assert near("what is this and how", "gateway ports") < 0.2
    assert near("GATEWAY_DEFAULT", "gateway default") > 0.5
    assert near("use --no-embedding", "what does --no-embedding do") > 0.7
    assert near("exit code 130", "exit code 3") < near("exit code 130", "the exit code is 130")
    assert near("数据流引擎", "数据流") > near("数据流引擎", "嵌入模型")


def test_tokens_of_code_like_words() -> None:
    assert [token.stem for token in tokenize("state.db")] == ["state.db", "stat", "db"]
    assert [token.stem for token in tokenize("LocalEnvironment")] == ["localenvironment", "local", "environment"]
    assert [token.stem for token in tokenize("127.0.0.1")] == ["127.0.0.1"]
    assert len({stem(word) for word in ("serve", "serves", "served", "serving")}) == 1
    assert len({stem(word) for word in ("stop", "stops", "stopped", "stopping")}) == 1
    assert stem("status") == "status"


@pytest.mark.spec("E10")
@pytest.mark.parametrize("dim", [8, 384, 1024])
def test_dimension(dim: int) -> None:
    embedder = EmbeddingFactory.create("hash", dim=dim)
    assert embedder.get_dim() == dim == len(embedder.embed("one text"))
    assert embedder.get_model_info() == {"method": "hash", "model": "hash", "dimension": dim, "lexical": True}


@pytest.mark.parametrize("dim", [0, -1, 7, 70000, 3.5, True, "384"])
def test_a_wrong_dimension_is_refused(dim: object) -> None:
    with pytest.raises(ConfigError, match="no dimension"):
        EmbeddingFactory.create("hash", dim=dim)


@pytest.mark.spec("E10")
def test_adapter_turns_one_into_many() -> None:
    client = EmbeddingClientAdapter(EMBEDDER)
    assert client.embed(["Hello", "World"]) == [EMBEDDER.embed("Hello"), EMBEDDER.embed("World")]
    assert client.get_dim() == 384
    with pytest.raises(TypeError, match="wrap it in a list"):
        client.embed("Hello")
    with pytest.raises(TypeError, match="text 1 is int"):
        client.embed(["a", 2])  # type: ignore[list-item]


def test_adapter_takes_a_users_own_embedder() -> None:
    class Mine:
        method_name = "mine"

        def embed(self, text: str) -> list[float]:
            return [float(len(text))]

        def get_dim(self) -> int:
            return 1

    assert EmbeddingClientAdapter(Mine()).embed(["a", "bcd"]) == [[1.0], [3.0]]


def test_three_thousand_short_texts_a_second() -> None:
    texts = [f"Which command shows status number {number} of the engine?" for number in range(3000)]
    began = time.process_time()
    EMBEDDER.embed_array(texts)
    assert time.process_time() - began < 1.0


@pytest.mark.spec("R3")
@pytest.mark.parametrize(
    ("piece", "times"), [("x", 1_000_000), ("A1b2-", 200_000), ("语", 100_000), ("a.", 300_000), ("-", 1_000_000)]
)
def test_a_megabyte_of_anything_is_embedded_in_moments(piece: str, times: int) -> None:
    began = time.process_time()
    vector = EMBEDDER.embed(piece * times)
    assert time.process_time() - began < 5
    assert len(vector) == 384
