"""Model folders that are wrong in one way each: the message names the file and the fault (SPEC E7, R3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from sagellm_core.backends import BackendConfig, create_backend
from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import ModelLoadError
from sagellm_core.models import locate_model, read_model_config
from sagellm_core.models.base import CausalLM
from sagellm_core.models.bundle import open_bundle
from sagellm_core.models.load import load_model
from sagellm_core.models.weights import WeightReader

pytestmark = pytest.mark.spec("E7", "R3")


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
