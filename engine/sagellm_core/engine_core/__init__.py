"""Scheduling and cache bookkeeping: which sequence advances, and where its keys and values lie. No torch."""

from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.plan import BatchType, NewSequence, SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.scheduler import Progress, Scheduler, SchedulerConfig
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus

__all__ = [
    "BatchType",
    "BlockManager",
    "NewSequence",
    "Progress",
    "SampledToken",
    "Scheduler",
    "SchedulerConfig",
    "SchedulerOutput",
    "Sequence",
    "SequenceStatus",
    "StepOutput",
]
