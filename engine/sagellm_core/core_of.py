"""From a model that was read to the loop that steps it."""

from __future__ import annotations

from collections.abc import Callable

from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import Update
from sagellm_core.models.bundle import ModelBundle


def new_core(
    bundle: ModelBundle, deliver: Callable[[list[Update]], None], after_step: Callable[[], None] | None = None
) -> EngineCore:
    """The step loop of a model, not started yet; for `deliver` and `after_step` see `EngineCore`."""
    config = bundle.config
    return EngineCore(
        bundle.new_executor,
        limits_of(bundle),
        deliver,
        block_size=config.kv_cache_block_size,
        prefix_cache=config.enable_prefix_cache,
        after_step=after_step,
    )


def limits_of(bundle: ModelBundle) -> SchedulerConfig:
    """What a scheduler may do with a model as it is configured."""
    config = bundle.config
    return SchedulerConfig(
        config.max_batch_size,
        config.max_num_batched_tokens,
        bundle.max_model_len,
        draft_model=config.speculative_model is not None,
    )
