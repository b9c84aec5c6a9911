"""From a protocol request to what the engine core takes: settled parameters, token ids, text to be."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from uuid import uuid4

from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.grammar import grammar_compiler
from sagellm_core.decoding.params import resolve_sampling
from sagellm_core.engine_core.messages import Submission
from sagellm_core.errors import invalid
from sagellm_core.models.bundle import ModelBundle
from sagellm_core.request_state import RequestState, core_params
from sagellm_core.text.chat_template import FALLBACK_STOP
from sagellm_core.text.output import OutputText
from sagellm_core.text.tokenizer import LONG_TEXT
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams


def new_request(
    prompt: str | list[int],
    params: SamplingParams | None = None,
    max_tokens: int | None = None,
    request_id: str | None = None,
    *,
    adapter: str = "",
) -> Request:
    """A request for one prompt. Raises EngineError for max_tokens below 1."""
    if max_tokens is not None and max_tokens < 1:
        raise invalid(f"max_tokens must be at least 1, not {max_tokens}", "max_tokens")
    name = request_id or uuid4().hex
    return Request(request_id=name, prompt=prompt, sampling_params=params, max_tokens=max_tokens, adapter=adapter)


async def take_in(request: Request, config: LLMEngineConfig, bundle: ModelBundle) -> RequestState:
    """Settle parameters, compile a grammar, encode the prompt. Raises EngineError for what can never work."""
    if config.task_type == "embed":
        raise invalid("this engine embeds (task_type=embed): it gives vectors, not text", "task_type")
    _check_adapter(request.adapter, config)
    params = resolve_sampling(request.sampling_params, request.max_tokens, config, bundle.generation)
    if request.messages is not None and bundle.template.is_fallback:
        params = params.model_copy(update={"stop": [*params.stop, FALLBACK_STOP]})
    bundle.check_ids([*params.logit_bias], "logit_bias")
    bundle.check_ids(params.stop_token_ids, "stop_token_ids")
    queued_at = monotonic()
    if params.grammar is not None:
        await grammar_compiler(bundle.folder, bundle.shape.vocab_size).admit(params.grammar)
    return RequestState(request, await encode(request, bundle), params, queued_at, config.engine_id)


async def take_in_text(request: Request, config: LLMEngineConfig, bundle: ModelBundle) -> RequestState:
    """The same for a text whose vector is wanted."""
    _check_adapter(request.adapter, config)
    params = SamplingParams(max_tokens=1)
    return RequestState(request, await encode(request, bundle), params, monotonic(), config.engine_id)


def submission(state: RequestState, bundle: ModelBundle, *, pooling: str = "") -> Submission:
    """What the core is told of a request."""
    request, params = state.request, state.params
    late = None if request.deadline_ms is None else state.queued_at + request.deadline_ms / 1000
    return Submission(
        state.seq_id,
        state.prompt,
        core_params(params),
        new_text=partial(OutputText, bundle.tokenizer, state.prompt, params),
        stop_ids=bundle.stop_ids(params),
        priority=request.priority,
        max_total=request.kv_budget_tokens,
        deadline=late,
        adapter=request.adapter,
        pooling=pooling,
    )


async def encode(request: Request, bundle: ModelBundle) -> list[int]:
    """Token ids of a request; a long text is encoded on another thread."""
    if _size(request) >= LONG_TEXT:
        return await asyncio.to_thread(bundle.encode, request)
    return bundle.encode(request)


def _check_adapter(name: str, config: LLMEngineConfig) -> None:
    if name and name not in config.lora_adapters:
        known = ", ".join(sorted(config.lora_adapters)) or "none"
        raise invalid(f"no adapter {name!r}; this engine has: {known}", "adapter")


def _size(request: Request) -> int:
    """About how much there is to render and to encode: characters, token ids, messages and parts of messages."""
    if request.messages is None:
        return len(request.prompt or "")
    size = len(request.messages)
    for message in request.messages:
        content = message.content
        if isinstance(content, list):
            size += sum(1 + len(str(part.get("text", ""))) for part in content)
        else:
            size += len(content or "")
    return size
