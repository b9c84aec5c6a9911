"""From what a request, the engine's configuration and the model say to the parameters that a request runs with.

Priority of every field: request > engine configuration > the model's generation_config.json > default.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import invalid
from sagellm_core.models.config import GenerationDefaults
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

DEFAULT_BEAMS = 4
DEFAULT_CANDIDATES = 4
MAX_CANDIDATES = 64
DEFAULT_DRAFTS = 4


def resolve_sampling(
    request: SamplingParams | None,
    max_tokens: int | None,
    config: LLMEngineConfig,
    generation: GenerationDefaults,
) -> SamplingParams:
    """Complete parameters with a settled strategy.

    Only sampling (or speculation on it) has a temperature above 0, only beam search several beams, only greedy and
    sampling speculate. What a strategy needs and nobody set has its default: 4 beams, 4 candidates of contrastive
    search, 4 drafts. Raises EngineError (invalid_argument) for values that contradict each other.
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
    settling = _settle(merged, values, config)
    changes = any(getattr(merged, name) != value for name, value in settling.items())
    settled = merged.model_copy(update=settling) if changes else merged
    _refuse_contradictions(settled)
    return settled


def _apply(values: dict[str, Any], layer: dict[str, Any]) -> None:
    """Lay one source over those below it; strategy, temperature and beams of a source are read together."""
    values |= layer
    strategy, temperature = layer.get("strategy"), layer.get("temperature")
    beams = layer.get("num_beams", 1)
    if strategy is DecodingStrategy.GREEDY:
        values["temperature"] = 0.0
    elif strategy is DecodingStrategy.SAMPLING and temperature is None:
        values["temperature"] = values.get("temperature") or 1.0
    elif strategy is None and beams > 1:
        if temperature:
            raise invalid(f"num_beams={beams} and temperature={temperature}: beam search does not draw", "num_beams")
        values["strategy"] = DecodingStrategy.BEAM_SEARCH
    elif strategy is None and temperature is not None:
        values["strategy"] = DecodingStrategy.SAMPLING if temperature > 0 else DecodingStrategy.GREEDY


def _settle(params: SamplingParams, values: dict[str, Any], config: LLMEngineConfig) -> dict[str, Any]:
    """The fields that follow from the strategy."""
    strategy = params.strategy
    if strategy is DecodingStrategy.BEAM_SEARCH:
        beams = values.get("num_beams", DEFAULT_BEAMS)
        return {"temperature": 0.0, "num_beams": beams, "n_speculative_tokens": 0}
    if strategy is DecodingStrategy.CONTRASTIVE:
        candidates = params.top_k or DEFAULT_CANDIDATES
        return {"temperature": 0.0, "num_beams": 1, "top_k": candidates, "n_speculative_tokens": 0}
    drafts = params.n_speculative_tokens
    if "n_speculative_tokens" not in values:
        drafts = config.num_speculative_tokens
    if strategy is DecodingStrategy.SPECULATIVE:
        drafts = drafts or DEFAULT_DRAFTS
    elif drafts:
        strategy = DecodingStrategy.SPECULATIVE
    elif params.temperature == 0:
        strategy = DecodingStrategy.GREEDY
    return {"strategy": strategy, "num_beams": 1, "n_speculative_tokens": drafts}


def _refuse_contradictions(params: SamplingParams) -> None:
    """Raise EngineError for settled parameters that no answer can meet."""
    strategy, n, best_of = params.strategy, params.n, params.best_of
    if params.min_tokens > params.max_tokens:
        raise invalid(f"min_tokens={params.min_tokens} is more than max_tokens={params.max_tokens}", "min_tokens")
    if best_of is not None and best_of < n:
        raise invalid(f"best_of={best_of} is less than n={n}", "best_of")
    if params.grammar is not None and params.ignore_eos:
        raise invalid("ignore_eos: an answer ends where its grammar ends", "ignore_eos")
    if strategy is DecodingStrategy.BEAM_SEARCH:
        if n > params.num_beams:
            raise invalid(f"n={n}: {params.num_beams} beams give at most as many answers", "n")
        if best_of is not None:
            raise invalid("best_of: beam search ranks its own beams; use num_beams", "best_of")
    if strategy is DecodingStrategy.CONTRASTIVE:
        if n > 1 or best_of is not None:
            raise invalid(f"n={n}, best_of={best_of}: contrastive search gives one answer", "n")
        if params.top_k > MAX_CANDIDATES:
            raise invalid(f"top_k={params.top_k}: contrastive search tries at most {MAX_CANDIDATES}", "top_k")


def _explicit(params: SamplingParams | None) -> dict[str, Any]:
    if params is None:
        return {}
    return {name: getattr(params, name) for name in params.model_fields_set}
