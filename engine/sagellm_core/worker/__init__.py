"""One device: `Worker` loads and runs a model there, `ModelRunner` turns a step's plan into tensors. Brings torch."""

from sagellm_core.worker.model_runner import ModelRunner
from sagellm_core.worker.worker import Worker

__all__ = ["ModelRunner", "Worker"]
