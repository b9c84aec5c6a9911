"""Model folders that are wrong in one way each: the message names the file and the fault (SPEC E7, R3)."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.tiny_models import OWN, tiny_model

from sagellm_core.backends import BackendConfig, create_backend
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_core.llm_engine import LLMEngine
from sagellm_core.models import locate_model, read_model_config
from sagellm_core.models.base import CausalLM
from sagellm_core.models.bundle import open_bundle
from sagellm_core.models.load import load_model
from sagellm_core.models.shard import WHOLE
from sagellm_core.models.weights import WeightReader
from sagellm_core.worker.memory import check_room
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Request

pytestmark = pytest.mark.spec("E7", "R3")

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), inner),
    max_leaves=5,
)


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return copytree(tiny_llama, tmp_path / "model")


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps({name: each for name, each in config.items() if each is not None}))


def load(folder: Path) -> CausalLM:
    config = read_model_config(folder)
    with WeightReader(folder) as reader:
        return load_model(config, reader, torch.float32, create_backend(BackendConfig("cpu")), config.max_position)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["LLamaForCausalLm"]}, "nearest: LlamaForCausalLM"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3"),
        ({"head_dim": 7}, "odd"),
        ({"hidden_act": "tanhshrink"}, "silu"),
        ({"vocab_size": "many"}, "not usable"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2}}, "spiral"),
        ({"rope_parameters": "linear"}, "'linear', not an object"),
        ({"architectures": "NoSuchModel"}, "architecture NoSuchModel"),
        ({"num_attention_heads": 0, "head_dim": None, "num_key_value_heads": None}, "not usable"),
        ({"num_attention_heads": -4}, "a size is not positive"),
        ({"architectures": ["LlamaForCausalLLM"]}, "nearest: LlamaForCausalLM"),
        ({"architectures": ["Olmo2ForCausalML"]}, "nearest: Olmo2ForCausalLM"),
        ({"architectures": None, "model_type": "zebra"}, "unnamed (model_type 'zebra')"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised already (gptq)"),
        ({"num_hidden_layers": 10**12, "sliding_window": 8}, "beyond every model"),
        ({"sliding_window": -3}, "a sliding window is not positive"),
        ({"sliding_window": 8, "layer_types": ["sliding_attention"]}, "layer_types has 1 entries for 2 layers"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": -2}}, "must be positive"),
    ],
)
def test_a_configuration_that_cannot_run(values: dict[str, Any], message: str, folder: Path) -> None:
    change(folder, **values)
    with pytest.raises(ModelLoadError) as caught:
        read_model_config(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eos_token_id": "x"}, "eos_token_id 'x'"),
        ({"eos_token_id": [1, "a"]}, "eos_token_id"),
        ({"eos_token_id": 1, "do_sample": True, "temperature": "hot"}, "temperature"),
        ({"eos_token_id": 1, "do_sample": True, "top_p": 7}, "top_p"),
        ({"max_new_tokens": -1}, "max_tokens"),
    ],
)
def test_generation_defaults_that_cannot_run_are_said_when_the_model_loads(
    values: dict[str, Any], message: str, folder: Path
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match=message) as caught:
        open_bundle(LLMEngineConfig(model_path=str(folder)))
    assert "generation_config.json" in str(caught.value)


@pytest.mark.parametrize("where", [["a"], {"a": 1}, None])
def test_an_index_of_shards_that_is_none(where: Any, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(ModelLoadError, match="weight_map"):
        load(folder)


def test_old_and_new_spellings_of_rope_agree(folder: Path) -> None:
    linear = {"factor": 4.0}
    change(folder, rope_scaling={"type": "linear", **linear}, rope_theta=500.0)
    old = read_model_config(folder).rope
    change(folder, rope_scaling=None, rope_parameters={"rope_type": "linear", "rope_theta": 500.0, **linear})
    assert read_model_config(folder).rope == old


def test_torn_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors.*torn"):
        load(folder)


def test_a_missing_tensor_and_a_wrong_shape(folder: Path) -> None:
    change(folder, num_hidden_layers=3)
    with pytest.raises(ModelLoadError, match=r"have no model\.layers\.2"):
        load(folder)
    change(folder, num_hidden_layers=2, intermediate_size=32)
    with pytest.raises(ModelLoadError, match=r"mlp\.gate_proj.*\(64, 32\)"):
        load(folder)


def test_a_missing_shard(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = copytree(llama_folder(shards=3), tmp_path / "model")
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="lacks 1 of 3"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_without_one_of_its_files(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelLoadError, match=name):
        open_bundle(LLMEngineConfig(model_path=str(folder)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_files_that_are_not_json(name: str, folder: Path) -> None:
    (folder / name).write_text("{not json")
    with pytest.raises(ModelLoadError, match=name):
        open_bundle(LLMEngineConfig(model_path=str(folder)))


def test_a_folder_without_weights_and_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="is a file"):
        locate_model(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="no weights"):
        locate_model(str(folder))


def test_a_hub_name_is_found_in_the_local_cache(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    repo = tmp_path / "hub" / "models--org--tiny"
    copytree(tiny_llama, repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert locate_model("org/tiny") == repo / "snapshots" / "abc"
    with pytest.raises(ModelLoadError) as caught:
        locate_model("org/other")
    assert caught.value.hint == "Download it:  hf download org/other"


def test_the_built_in_model_has_a_name() -> None:
    from sagellm_core import builtin

    assert locate_model(builtin.MODEL_ID) == builtin.path()


@pytest.mark.parametrize(
    ("left", "message", "hint"),
    [
        ("tokenizer.model", "tokenizer.model has to be converted", "AutoTokenizer"),
        ("vocab.json", "vocab.json has to be converted", "AutoTokenizer"),
        ("", "tokenizer.json is missing", "sage-builtin"),
    ],
)
def test_a_folder_without_a_tokenizer_says_what_to_do(left: str, message: str, hint: str, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    if left:
        (folder / left).write_text("")
    with pytest.raises(ModelLoadError, match=message) as caught:
        locate_model(str(folder))
    assert hint in caught.value.hint


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="may run code") as caught:
        locate_model(str(folder))
    assert "if you trust their author" in caught.value.hint


def test_a_folder_of_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelLoadError, match="LoRA adapter") as caught:
        locate_model(str(folder))
    assert "base model" in caught.value.hint


def test_text_that_the_weights_have_no_vectors_for(folder: Path) -> None:
    """A tokenizer may know more tokens than the model, as long as nobody uses them."""
    change(folder, vocab_size=64)
    bundle = open_bundle(LLMEngineConfig(model_path=str(folder)))
    assert bundle.encode(Request(prompt="<|user|>"))
    with pytest.raises(EngineError, match="outside the vocabulary of 64") as caught:
        bundle.encode(Request(prompt="many words of the lazy dog"))
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("family", OWN)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_configuration_breaks_the_reader(family: str, data: st.DataObject) -> None:
    """Whatever stands in config.json, it is read, or refused with a ModelLoadError."""
    raw = json.loads((tiny_model(family) / "config.json").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(raw)), min_size=1, max_size=3)):
        raw[key] = data.draw(ANYTHING)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text(json.dumps(raw))
        try:
            config = read_model_config(Path(name))
        except ModelLoadError:
            return
    assert config.num_heads % config.num_kv_heads == 0


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0, 0.999))
def test_a_file_torn_anywhere(cut: float, tiny_llama: Path) -> None:
    data = (tiny_llama / "model.safetensors").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").write_bytes(data[: int(len(data) * cut)])
        with pytest.raises(ModelLoadError, match="torn"), WeightReader(Path(name)):
            pass


class Full(CPUBackend):
    """A device with next to nothing free."""

    def free_bytes(self) -> int | None:
        return 1000


def test_weights_larger_than_the_memory_are_not_read(folder: Path) -> None:
    config = read_model_config(folder)
    with pytest.raises(EngineError, match=r"need .* GB, but cpu has 0.0 GB free") as caught:
        check_room(config, 4, Full(BackendConfig("cpu")), WHOLE)
    assert caught.value.error_code is ErrorCode.RESOURCE_EXHAUSTED
    check_room(config, 1000 / config.num_parameters, Full(BackendConfig("cpu")), WHOLE)


async def test_a_cache_larger_than_the_memory(folder: Path) -> None:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), backend_type="cpu", kv_cache_num_blocks=10**13))
    with pytest.raises(EngineError, match="Out of memory while the model was loaded") as caught:
        await engine.start()
    assert caught.value.error_code is ErrorCode.RESOURCE_EXHAUSTED


def test_a_model_of_transformers_with_torn_or_missing_weights(tmp_path: Path) -> None:
    folder = copytree(tiny_model("olmo2"), tmp_path / "model")
    change(folder, num_hidden_layers=3, layer_types=None)
    with pytest.raises(ModelLoadError, match=r"have no model\.layers\.2"):
        load(folder)
    change(folder, num_hidden_layers=2, intermediate_size=48)
    with pytest.raises(ModelLoadError, match="Olmo2ForCausalLM"):
        load(folder)


@pytest.mark.parametrize(("family", "message"), [("mamba", "mamba"), ("bloom", "registry|Bloom")])
def test_architectures_that_cannot_run_on_a_paged_cache(family: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=f"(?i){message}"):
        load(tiny_model(family))


def test_without_transformers_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model("olmo2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelLoadError, match="only with transformers") as caught:
        read_model_config(folder)
    assert "sage-stack[hf]" in caught.value.hint
