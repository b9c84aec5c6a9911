"""Where steps run. `InProcessExecutor` is in its own module, because it brings torch."""

from sagellm_core.executor.base import Executor, WorkerInfo

__all__ = ["Executor", "WorkerInfo"]
