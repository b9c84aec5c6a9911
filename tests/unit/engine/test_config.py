"""Configuration: the seed's fields and defaults, files with errors that name the field (SPEC E1, R3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sage.common.errors import ConfigError
from sagellm_core import LLMEngineConfig, load_config

pytestmark = pytest.mark.spec("E1")


def test_the_seeds_fields_and_defaults() -> None:
    config = LLMEngineConfig(model_path="m")
    assert (config.backend_type, config.comm_type, config.dtype) == ("auto", "auto", "auto")
    assert (config.max_batch_size, config.max_model_len, config.max_new_tokens) == (32, 4096, 128)
    assert (config.tensor_parallel_size, config.pipeline_parallel_size) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_path": ""},
        {"max_batch_size": 0},
        {"num_threads": 10_000},
        {"dtype": "float8"},
        {"max_bach_size": 3},
        {"trust_remote_code": True},
        {"max_num_batched_tokens": 8},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LLMEngineConfig.model_validate({"model_path": "m", **wrong})


def test_a_yaml_file_and_the_engine_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "backend: {kind: cpu, device_ids: [1]}\n"
        "engine: {kind: llm, model: sage-builtin, max_batch_size: 4, max_input_tokens: 100, max_output_tokens: 20}\n"
        "workload: {segments: [short, long], concurrency: 2}\n"
        "output: {metrics_path: out.json}\n"
    )
    config = load_config(path)
    engine = config.engine_config()
    assert (engine.model_path, engine.backend_type, engine.max_batch_size) == ("sage-builtin", "cpu", 4)
    assert (engine.max_model_len, engine.max_new_tokens, engine.device_ids) == (120, 20, [1])
    assert config.workload.segments == ["short", "long"]


def test_json_reads_the_same_and_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"engine": {"model_path": "/models/x"}}')
    assert load_config(str(tmp_path / "c.json")).engine_config().model_path == "/models/x"
    (tmp_path / "e.yaml").write_text("")
    assert load_config(tmp_path / "e.yaml").engine.model == "sage-builtin"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "engine: [", "not valid yaml"),
        ("c.json", "{", "not valid json"),
        ("c.yaml", "engine: {max_batch_size: none}", "engine.max_batch_size is wrong"),
        ("c.yaml", "engin: {}", "engin is wrong"),
        ("c.yaml", "- 1", "is wrong"),
    ],
)
def test_files_that_are_wrong(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the configuration") as caught:
        load_config(tmp_path / "none.yaml")
    assert "examples/config_cpu.yaml" in caught.value.hint
