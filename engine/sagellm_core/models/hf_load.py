"""Loading a model that runs through `transformers`' own code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import nn

from sagellm_core.backends.base import Backend
from sagellm_core.errors import ModelLoadError
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.hf_config import transformers
from sagellm_core.models.hf_decoder import NAME, HFDecoder, register, seat_attention, try_out
from sagellm_core.models.hf_parallel import hand_to_backend, keep_stage
from sagellm_core.models.shard import Shard

_LOADING = Lock()
"""While the library loads, it replaces functions of its own classes: two at once would leave them replaced."""


def load_hf(
    config: ModelConfig, folder: Path, dtype: torch.dtype, backend: Backend, max_position: int, shard: Shard
) -> HFDecoder:
    """The model on the backend's device. Raises ModelLoadError, EngineError (not_implemented) for what cannot be split.

    Every rank reads the whole model and keeps its part.
    """
    library = transformers(config.architecture, folder)
    register()
    model = _read(library, folder, dtype, config).to(backend.device).eval()
    decoder = getattr(model, model.base_model_prefix)
    _fix_positions(decoder, max_position)
    seat = seat_attention(decoder)
    if shard.num_stages > 1:
        try_out(decoder, seat, config, backend.device)
    hand_to_backend(model, backend, shard)
    specs = try_out(decoder, seat, config, backend.device)
    if shard.num_stages > 1:
        keep_stage(model, model.config.get_text_config(decoder=True), shard)
    own = [specs[layer] for layer in shard.layers(config.num_layers)]
    config = replace(config, head_dim=own[0].head_dim, plain_attention=all(spec.plain for spec in specs.values()))
    return HFDecoder(config, shard, model, seat, own, dtype)


def _read(library: Any, folder: Path, dtype: torch.dtype, config: ModelConfig) -> Any:
    try:
        with _LOADING, _quiet(library):
            model, report = library.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=NAME,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # the library raises what it likes for files it cannot use
        raise ModelLoadError(
            f"transformers cannot load {config.architecture} from {folder}", cause=str(error)
        ) from error
    missing = sorted(report.get("missing_keys") or ())
    wrong = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in report.get("mismatched_keys") or ()
    )
    if missing or wrong:
        raise ModelLoadError(
            f"The weights in {folder} have no {missing[0]}" if missing else f"{wrong[0]} in {folder} has a wrong shape"
        )
    return model


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No progress bars, no advice on a server's standard error."""
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _fix_positions(decoder: nn.Module, max_position: int) -> None:
    """Take the rotations that change with the longest text of a step (dynamic, longrope) for the longest text of all.

    A token's rotation must not depend on what else is in the batch.
    """
    for module in decoder.modules():
        kind = getattr(module, "rope_type", None)
        if not isinstance(kind, str) or not re.search("dynamic|longrope", kind):
            continue
        init = import_module("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS[kind]
        config: Any = module.config
        frequencies, scaling = init(config, None, seq_len=max_position)
        buffer = module.get_buffer("inv_freq")
        buffer.copy_(frequencies.to(buffer.device))
        module.__dict__.update(rope_type="default", attention_scaling=scaling)
