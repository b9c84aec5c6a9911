"""Where a sampling parameter comes from: request > engine > generation_config.json > default (SPEC E2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.params import resolve_sampling
from sagellm_core.errors import EngineError
from sagellm_core.models.config import GenerationDefaults, read_generation_defaults
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

pytestmark = pytest.mark.spec("E2")


def resolve(
    request: SamplingParams | None = None,
    *,
    max_tokens: int | None = None,
    model: dict[str, Any] | None = None,
    **engine: Any,
) -> SamplingParams:
    config = LLMEngineConfig(model_path="m", **engine)
    return resolve_sampling(request, max_tokens, config, GenerationDefaults(sampling=model or {}))


def test_defaults_are_the_seeds() -> None:
    params = resolve()
    assert (params.strategy, params.temperature, params.max_tokens) == (DecodingStrategy.GREEDY, 0.0, 128)


def test_every_source_in_its_order() -> None:
    model = {"max_tokens": 11, "top_p": 0.5, "temperature": 0.3, "top_k": 9}
    engine: dict[str, Any] = {"sampling": SamplingParams(top_p=0.6, temperature=0.4), "max_new_tokens": 22}
    params = resolve(SamplingParams(temperature=0.7), model=model, **engine)
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.7, 0.6, 9, 22)
    assert resolve(SamplingParams(max_tokens=33), model=model, **engine).max_tokens == 33
    assert resolve(SamplingParams(max_tokens=33), max_tokens=44, model=model).max_tokens == 44
    assert resolve(model=model).max_tokens == 11


@pytest.mark.parametrize(
    ("params", "temperature", "strategy"),
    [
        (SamplingParams(), 0.0, "greedy"),
        (SamplingParams(temperature=0.5), 0.5, "sampling"),
        (SamplingParams(strategy=DecodingStrategy.SAMPLING), 1.0, "sampling"),
        (SamplingParams(strategy=DecodingStrategy.SAMPLING, temperature=0.0), 0.0, "greedy"),
        (SamplingParams(strategy=DecodingStrategy.GREEDY, temperature=0.9), 0.0, "greedy"),
    ],
)
def test_strategy_and_temperature_agree(params: SamplingParams, temperature: float, strategy: str) -> None:
    settled = resolve(params)
    assert (settled.temperature, settled.strategy) == (temperature, strategy)


def test_a_greedy_engine_stays_greedy_beside_a_sampling_model() -> None:
    engine = SamplingParams(strategy=DecodingStrategy.GREEDY)
    assert resolve(model={"temperature": 0.8}, sampling=engine).strategy is DecodingStrategy.GREEDY
    assert resolve(model={"temperature": 0.8}).strategy is DecodingStrategy.SAMPLING


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"num_beams": 3}, {"strategy": "beam_search", "num_beams": 3, "temperature": 0.0}),
        ({"strategy": "beam_search"}, {"strategy": "beam_search", "num_beams": 4}),
        ({"strategy": "beam_search", "num_beams": 1}, {"strategy": "beam_search", "num_beams": 1}),
        ({"strategy": "greedy", "num_beams": 3}, {"strategy": "greedy", "num_beams": 1}),
        ({"strategy": "contrastive"}, {"strategy": "contrastive", "top_k": 4, "temperature": 0.0}),
        ({"strategy": "contrastive", "top_k": 7}, {"top_k": 7}),
        ({"n_speculative_tokens": 3}, {"strategy": "speculative", "temperature": 0.0, "n_speculative_tokens": 3}),
        ({"strategy": "speculative", "temperature": 0.5}, {"n_speculative_tokens": 4, "temperature": 0.5}),
        ({"num_beams": 3, "n_speculative_tokens": 3}, {"strategy": "beam_search", "n_speculative_tokens": 0}),
    ],
)
def test_a_strategy_settles_what_belongs_to_it(params: dict[str, Any], expected: dict[str, Any]) -> None:
    settled = resolve(SamplingParams(**params))
    assert {name: getattr(settled, name) for name in expected} == expected


def test_an_engine_that_speculates_does_so_for_requests_that_do_not_say() -> None:
    assert resolve(num_speculative_tokens=5).n_speculative_tokens == 5
    assert resolve(SamplingParams(n_speculative_tokens=0), num_speculative_tokens=5).n_speculative_tokens == 0
    assert resolve(SamplingParams(num_beams=2), num_speculative_tokens=5).n_speculative_tokens == 0


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"num_beams": 4, "temperature": 0.7}, "num_beams"),
        ({"num_beams": 2, "n": 3}, "n"),
        ({"num_beams": 4, "best_of": 4}, "best_of"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"min_tokens": 200, "max_tokens": 100}, "min_tokens"),
        ({"strategy": "contrastive", "n": 2}, "n"),
        ({"strategy": "contrastive", "top_k": 65}, "top_k"),
        ({"grammar": {"kind": "json_object"}, "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_contradictions_are_refused_with_the_field(params: dict[str, Any], field: str) -> None:
    with pytest.raises(EngineError) as caught:
        resolve(SamplingParams(**params))
    assert (caught.value.error_code, caught.value.param) == (ErrorCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": [""]},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": {1: 1e308}},
        {"length_penalty": 1e300},
        {"repetition_penalty": 1e-300},
        {"length_penalty": -1e300},
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SamplingParams(**wrong)


def test_generation_config_counts_only_where_it_says_to_sample(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    said = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [3, 4], "max_new_tokens": 50}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert read_generation_defaults(tmp_path) == GenerationDefaults((3, 4), {"max_tokens": 50})
    (tmp_path / "generation_config.json").write_text(json.dumps({**said, "do_sample": True}))
    assert read_generation_defaults(tmp_path).sampling == {"temperature": 0.6, "top_p": 0.9, "max_tokens": 50}
