"""From what a request, the engine's configuration and the model say to the parameters that a request runs with.

Priority of every field: request > engine configuration > the model's generation_config.json > default.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import invalid, not_implemented
from sagellm_core.models.config import GenerationDefaults
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

SUPPORTED = (DecodingStrategy.GREEDY, DecodingStrategy.SAMPLING)


def resolve_sampling(
    request: SamplingParams | None,
    max_tokens: int | None,
    config: LLMEngineConfig,
    generation: GenerationDefaults,
) -> SamplingParams:
    """Complete parameters with a settled strategy: greedy (temperature 0) or sampling (temperature above 0).

    Raises EngineError: not_implemented for strategies that this engine does not have, invalid_argument for values
    that contradict each other.
    """
    values: dict[str, Any] = {"max_tokens": config.max_new_tokens}
    _apply(values, generation.sampling)
    if "max_new_tokens" in config.model_fields_set:
        values["max_tokens"] = config.max_new_tokens
    _apply(values, _explicit(config.sampling))
    _apply(values, _explicit(request))
    if max_tokens is not None:
        values["max_tokens"] = max_tokens
    try:
        merged = SamplingParams.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else None
        raise invalid(f"{field}: {first['msg']}", field) from error
    return _settle(merged)


def _apply(values: dict[str, Any], layer: dict[str, Any]) -> None:
    """Lay one source over those below it; strategy and temperature of a source are read together."""
    values |= layer
    strategy, temperature = layer.get("strategy"), layer.get("temperature")
    if strategy is DecodingStrategy.GREEDY:
        values["temperature"] = 0.0
    elif strategy is DecodingStrategy.SAMPLING and temperature is None:
        values["temperature"] = values.get("temperature") or 1.0
    elif strategy is None and temperature is not None:
        values["strategy"] = DecodingStrategy.SAMPLING if temperature > 0 else DecodingStrategy.GREEDY


def _settle(params: SamplingParams) -> SamplingParams:
    strategy = params.strategy
    if params.num_beams > 1:
        strategy = DecodingStrategy.BEAM_SEARCH
    elif params.n_speculative_tokens > 0:
        strategy = DecodingStrategy.SPECULATIVE
    if strategy not in SUPPORTED:
        names = " and ".join(each.value for each in SUPPORTED)
        raise not_implemented(f"this engine does not decode by {strategy.value}; it has {names}", "strategy")
    if params.n > 1:
        raise not_implemented(f"n={params.n}: this engine gives one answer a request (n=1)", "n")
    if strategy is DecodingStrategy.SAMPLING and params.temperature == 0:
        strategy = DecodingStrategy.GREEDY
    return params.model_copy(update={"strategy": strategy})


def _explicit(params: SamplingParams | None) -> dict[str, Any]:
    if params is None:
        return {}
    return {name: getattr(params, name) for name in params.model_fields_set}
