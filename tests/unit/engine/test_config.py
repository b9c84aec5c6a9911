"""Configuration: the seed's fields and defaults, files with errors that name the field (SPEC E1, R3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sage.common.errors import ConfigError
from sagellm_core import LLMEngineConfig, load_config
from sagellm_core.config import EngineFileConfig, read_engine_config

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


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("engine:\n  model: x\n  max_bach_size: 3\n", ["line 3", "engine.max_bach_size", "3"], "'max_batch_size'"),
        ("max_batch_size: 3\n", ["line 1", "max_batch_size"], "'engine.max_batch_size'"),
        ("\n\nengin: {}\n", ["line 3", "'engin'"], "'engine'"),
        ("zzz: 1\n", ["line 1", "zzz"], "backend, engine, output, workload"),
        ("engine:\n  max_batch_size: none\n", ["line 2", "'none' is not a whole number"], "config_cpu.yaml"),
        ("engine:\n  max_batch_size: 1.5\n", ["line 2", "1.5 is not a whole number"], "config_cpu.yaml"),
        ("backend:\n  device_ids:\n  - 0\n  - a\n", ["line 4", "backend.device_ids.1", "'a' is not"], ""),
        ("workload: {segments: [lnog]}\n", ["'lnog' is not one of short, long, stress"], ""),
        ("workload: {concurrency: 0}\n", ["0 is not at least 1"], ""),
        ("engine:\n", ["line 1", "engine is wrong: None is not a mapping"], ""),
    ],
)
def test_a_wrong_field_is_told_by_line_value_and_the_nearest_name(
    text: str, words: list[str], hint: str, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert [word for word in words if word not in str(caught.value)] == []
    assert hint in caught.value.hint
    assert "Input should" not in str(caught.value), "no library's words"


@pytest.mark.parametrize(
    ("fields", "words", "hint"),
    [
        ({"max_bach_size": 3}, "there is no field 'max_bach_size' (its value: 3)", "'max_batch_size'"),
        ({"dtype": "float8"}, "'float8' is not one of auto, float32, float16, bfloat16", ""),
        ({"sampling": {"temprature": 1}}, "sampling.temprature is wrong", "'temperature'"),
        ({"max_batch_size": 9999}, "9999 is not at most 4096", ""),
        ({"prefill_nodes": 1}, "prefill_nodes need nodes that decode", ""),
        ({"model_path": ["m"]}, "['m'] is not text", ""),
    ],
)
def test_an_engines_fields_are_told_in_the_same_way(fields: dict[str, object], words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_engine_config({"model_path": "m", **fields}, "engine.yaml")
    assert str(caught.value).startswith("engine.yaml")
    assert words in str(caught.value)
    assert hint in caught.value.hint


def test_what_only_the_engine_refuses_is_a_configuration_error_too() -> None:
    file = EngineFileConfig.model_validate({"engine": {"max_batch_size": 5000}})
    with pytest.raises(ConfigError, match="5000 is not at most 4096"):
        file.engine_config()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the configuration") as caught:
        load_config(tmp_path / "none.yaml")
    assert "examples/config_cpu.yaml" in caught.value.hint
