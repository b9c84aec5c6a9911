"""Everything about a model that is not its weights: shape, tokenizer, chat template, what ends an answer. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import invalid
from sagellm_core.executor.base import Executor
from sagellm_core.models.config import (
    GenerationDefaults,
    ModelConfig,
    parallel_error,
    read_generation_defaults,
    read_model_config,
)
from sagellm_core.models.locate import locate_model
from sagellm_core.text.chat_template import ChatTemplate
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(slots=True, frozen=True)
class ModelBundle:
    """A model folder, read and checked."""

    config: LLMEngineConfig
    folder: Path
    shape: ModelConfig
    generation: GenerationDefaults
    tokenizer: Tokenizer
    template: ChatTemplate
    eos_ids: frozenset[int]
    max_model_len: int

    def new_executor(self) -> Executor:
        """The executor for this model: in this process (imports torch), or ranks of their own where it is split."""
        if self.config.tensor_parallel_size * self.config.pipeline_parallel_size > 1:
            from sagellm_core.executor.multi_process import MultiProcessExecutor

            return MultiProcessExecutor(self.config, self.folder, self.max_model_len)
        from sagellm_core.executor.in_process import InProcessExecutor

        return InProcessExecutor(self.config, self.shape, self.folder, self.max_model_len)

    def encode(self, request: Request) -> list[int]:
        """Token ids of a request's prompt or messages.

        Raises EngineError for ids outside the vocabulary, and for a text far beyond the context, which is not read to
        its end: encoding megabytes would take minutes.
        """
        if request.messages is not None:
            text = self.template.render(request.messages, _template_variables(request.metadata), request.tools)
            return self._tokens(text, "messages", add_special_tokens=self.template.is_fallback)
        if isinstance(request.prompt, str):
            return self._tokens(request.prompt, "prompt", add_special_tokens=True)
        ids = request.prompt or []
        self.check_ids(ids, "prompt")
        return ids

    def check_ids(self, ids: Sequence[int], field: str) -> None:
        """Raise EngineError where one is no token of this model."""
        size = self.shape.vocab_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise invalid(f"token id {wrong} is outside the vocabulary of {size}", field)

    def _tokens(self, text: str, field: str, *, add_special_tokens: bool) -> list[int]:
        if not text.isascii() and _HALF_CHARACTER.search(text):
            raise invalid("the text is not Unicode: it has half of a surrogate pair", field)
        if self.tokenizer.exceeds(text, self.max_model_len):
            raise invalid(
                f"the prompt has more than {2 * self.max_model_len} tokens, but the model's context is "
                f"{self.max_model_len} tokens",
                field,
            )
        ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        if self.tokenizer.vocab_size > self.shape.vocab_size:  # special tokens that the weights have no vectors for
            self.check_ids(ids, field)
        return ids

    def stop_ids(self, params: SamplingParams) -> frozenset[int]:
        """Tokens that end an answer with these parameters."""
        own = frozenset(params.stop_token_ids)
        return own if params.ignore_eos else own | self.eos_ids

    def describe(self) -> dict[str, Any]:
        """What `LLMEngine.get_info` says of the model."""
        shape = self.shape
        return {
            "model_path": str(self.folder),
            "architecture": shape.architecture,
            "parameters": shape.num_parameters,
            "vocab_size": shape.vocab_size,
            "max_model_len": self.max_model_len,
        }


def open_bundle(config: LLMEngineConfig) -> ModelBundle:
    """Find and check the configured model. Raises ModelLoadError with the next command."""
    folder = locate_model(config.model_path)
    shape = read_model_config(folder)
    error = parallel_error(shape, config.tensor_parallel_size, config.pipeline_parallel_size)
    if error is not None:
        raise error
    tokenizer = Tokenizer(folder)
    generation = read_generation_defaults(folder)
    return ModelBundle(
        config=config,
        folder=folder,
        shape=shape,
        generation=generation,
        tokenizer=tokenizer,
        template=ChatTemplate(tokenizer),
        eos_ids=end_ids(generation, tokenizer),
        max_model_len=min(config.max_model_len, shape.max_position),
    )


def end_ids(generation: GenerationDefaults, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens by which the model itself ends an answer."""
    own = tokenizer.eos_token_id
    return frozenset(generation.eos_token_ids) | (frozenset() if own is None else {own})


def _template_variables(metadata: Mapping[str, Any]) -> dict[str, Any]:
    variables = metadata.get("chat_template_kwargs")
    return dict(variables) if isinstance(variables, Mapping) else {}
