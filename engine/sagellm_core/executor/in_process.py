"""One worker in this process, on the thread of the caller."""

from __future__ import annotations

from pathlib import Path

from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.executor.base import WorkerInfo
from sagellm_core.models.config import ModelConfig
from sagellm_core.worker.worker import Worker


class InProcessExecutor:
    """The executor of a single device."""

    def __init__(self, config: LLMEngineConfig, model: ModelConfig, folder: Path, max_model_len: int) -> None:
        self._worker = Worker(config, model, folder, max_model_len)

    def start(self) -> WorkerInfo:
        return self._worker.load()

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        return self._worker.execute(plan)

    def stop(self) -> None:
        self._worker.unload()
