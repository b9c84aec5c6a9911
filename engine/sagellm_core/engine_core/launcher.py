"""The executor of an engine core: how it is made, made anew after failures, and exchanged for that of another model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from threading import Timer

from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import CoreStats
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError
from sagellm_core.executor.base import Executor, OverlappingExecutor

_LOG = logging.getLogger("sagellm_core")
_LONGEST_PAUSE_S = 30.0
_HANG_S = 10.0


class Launcher:
    """Holds the executor; what it offers goes into `stats`. Used on the step thread.

    `pause_s` is how long to wait before `relaunch` is tried again.
    """

    def __init__(
        self,
        new_executor: Callable[[], Executor],
        limits: SchedulerConfig,
        stats: CoreStats,
        on_lost: Callable[[EngineError], None],
        *,
        prefix_cache: bool,
    ) -> None:
        self.pause_s = 0.0
        self._new_executor = new_executor
        self._limits = limits
        self._stats = stats
        self._on_lost = on_lost
        self._prefix_cache = prefix_cache
        self._executor: Executor | None = None
        self._overlapping: OverlappingExecutor | None = None
        self._patience: Timer | None = None

    @property
    def executor(self) -> Executor:
        assert self._executor is not None, "the core has not started"
        return self._executor

    @property
    def overlaps(self) -> bool:
        """Whether there is time of one's own while a step is computed."""
        return self._overlapping is not None

    def launch(self) -> None:
        """Make an executor and load the model. Raises what loading raises."""
        self._executor = executor = self._new_executor()
        self._overlapping = executor if isinstance(executor, OverlappingExecutor) else None
        info = executor.start()
        executor.watch(self._on_lost)
        stats = self._stats
        stats.kv_blocks, stats.bytes_per_token = info.num_blocks, info.bytes_per_token
        stats.dtype, stats.device = info.dtype, info.device

    def new_blocks(self) -> BlockManager:
        """Bookkeeping of the executor's empty cache."""
        return BlockManager(self._stats.kv_blocks, self._stats.block_size, prefix_cache=self._prefix_cache)

    def limits(self) -> SchedulerConfig:
        """Limits of a scheduler; a budget that is left to the device is what the executor says."""
        budget = self._limits.max_batched_tokens or self.executor.info.token_budget
        return replace(self._limits, max_batched_tokens=budget)

    def execute(self, plan: SchedulerOutput, meanwhile: Callable[[], None]) -> StepOutput:
        """A step. `meanwhile` is called while it is computed, where that is possible. Raises what the step raises."""
        if self._overlapping is None:
            return self.executor.execute(plan)
        self._overlapping.submit(plan)
        meanwhile()
        return self._overlapping.result()

    def relaunch(self, why: BaseException) -> bool:
        """Make the executor anew; False, and a longer pause, when that fails too."""
        _LOG.warning("the engine makes its executor anew after: %s", why)
        try:
            self.stop()
            self.launch()
        except Exception as error:
            self.pause_s = min(max(2 * self.pause_s, 1.0), _LONGEST_PAUSE_S)
            _LOG.error("the executor does not start; next try in %.0f s: %s", self.pause_s, error, exc_info=error)
            return False
        self.pause_s = 0.0
        self._stats.restarts += 1
        return True

    def exchange(self, new_executor: Callable[[], Executor], limits: SchedulerConfig) -> None:
        """Load another model in the place of this one. When that fails, this one is back and the error is raised."""
        before = self._new_executor, self._limits
        self.stop()
        self._new_executor, self._limits = new_executor, limits
        try:
            self.launch()
        except Exception:
            self._new_executor, self._limits = before
            self.launch()
            raise

    def stop(self) -> None:
        """End the executor, however it is; one that cannot even stop is let go."""
        try:
            self.executor.stop()
        except Exception as error:
            _LOG.error("the executor did not stop cleanly: %s", error, exc_info=error)
        if self._patience is not None:
            self._patience.cancel()

    def stop_soon(self) -> None:
        """`stop` comes after the step that runs: workers that hang in it are ended. From any thread."""
        if self._overlapping is not None and self._patience is None:
            self._patience = Timer(_HANG_S, self._overlapping.abandon)
            self._patience.daemon = True
            self._patience.start()
