"""One worker in this process, on the thread of the caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError
from sagellm_core.executor.base import NOT_LOADED, CommStats, WorkerInfo, check_comm_type
from sagellm_core.models.config import ModelConfig
from sagellm_core.worker.worker import Worker


class InProcessExecutor:
    """The executor of a single device."""

    def __init__(self, config: LLMEngineConfig, model: ModelConfig, folder: Path, max_model_len: int) -> None:
        self.info = NOT_LOADED
        self.comm = CommStats()
        self._worker = Worker(config, model, folder, max_model_len)

    def start(self) -> WorkerInfo:
        check_comm_type(self._worker.config.comm_type)
        self.info = self._worker.load()
        return self.info

    def watch(self, on_lost: Callable[[EngineError], None]) -> None:
        """Nothing to watch: what ends this worker ends the caller."""

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        return self._worker.execute(plan)

    def read_blocks(self, blocks: list[int]) -> bytearray:
        return self._worker.read_blocks(blocks)

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        self._worker.write_blocks(blocks, content)

    def sleep(self) -> None:
        self._worker.sleep()

    def wake(self) -> None:
        self._worker.wake()

    def stop(self) -> None:
        self._worker.unload()
