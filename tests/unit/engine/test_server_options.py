"""The options of `sage-engine`: each reaches the configuration, and a wrong one is named as it was typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage.common.errors import ConfigError
from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_server import _engine_config, _parser

DOCS = Path(__file__).parents[3] / "docs"
GIVEN = {
    "--model": ("m", "model_path", "m"),
    "--served-model-name": ("name", "served_model_name", "name"),
    "--backend": ("cpu", "backend_type", "cpu"),
    "--dtype": ("float16", "dtype", "float16"),
    "--max-batch-size": ("3", "max_batch_size", 3),
    "--max-model-len": ("77", "max_model_len", 77),
    "--max-waiting": ("5", "max_waiting_requests", 5),
    "--kv-cache-blocks": ("9", "kv_cache_num_blocks", 9),
    "--threads": ("2", "num_threads", 2),
    "--quantization": ("int8", "quantization", "int8"),
    "--num-speculative-tokens": ("4", "num_speculative_tokens", 4),
    "--speculative-model": ("small", "speculative_model", "small"),
    "--lora": ("a=b", "lora_adapters", {"a": "b"}),
    "--pooling-strategy": ("cls", "pooling_strategy", "cls"),
    "--tensor-parallel-size": ("2", "tensor_parallel_size", 2),
    "--pipeline-parallel-size": ("2", "pipeline_parallel_size", 2),
    "--decode-nodes": ("2", "decode_nodes", 2),
}
OF_THE_SERVER = {"--help", "--host", "--port", "--api-key", "--api-key-file", "--log-level"}


def options() -> set[str]:
    return {text for action in _parser()._actions for text in action.option_strings if text.startswith("--")}


def config(*words: str) -> LLMEngineConfig:
    return _engine_config(_parser().parse_args(words))


@pytest.mark.parametrize("option", GIVEN)
def test_an_option_reaches_the_configuration(option: str) -> None:
    text, field, value = GIVEN[option]
    assert getattr(config(option, text), field) == value


def test_every_option_is_looked_at_here() -> None:
    assert options() == OF_THE_SERVER | GIVEN.keys() | {"--no-prefix-cache", "--prefill-nodes"}
    assert not config("--no-prefix-cache").enable_prefix_cache
    assert config("--prefill-nodes", "1", "--decode-nodes", "1").prefill_nodes == 1


@pytest.mark.parametrize("page", ["engine-parallel.md", "manual/engine.md"])
def test_pages_name_options_that_there_are(page: str) -> None:
    lines = [line for line in (DOCS / page).read_text().splitlines() if "sage-engine" in line]
    assert lines
    assert {option for line in lines for option in re.findall(r"--[a-z][a-z-]*", line)} <= options()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-waiting", "0"], "--max-waiting is wrong"),
        (["--kv-cache-blocks", "0"], "--kv-cache-blocks is wrong"),
        (["--threads", "0"], "--threads is wrong"),
        (["--model", ""], "--model is wrong"),
        (["--num-speculative-tokens", "99"], "--num-speculative-tokens is wrong"),
        (["--lora", "nameless"], "--lora is wrong"),
        (["--prefill-nodes", "1"], "The command line is wrong"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_typed(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}") as caught:
        config(*words)
    assert "Value error" not in caught.value.cause
