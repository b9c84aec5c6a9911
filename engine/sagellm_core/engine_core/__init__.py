"""Scheduling and cache bookkeeping: which sequence advances, and where its keys and values lie. No torch."""

from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.groups import Group
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.plan import (
    BatchType,
    Candidates,
    Fork,
    NewSequence,
    SampledToken,
    SchedulerOutput,
    StepOutput,
)
from sagellm_core.engine_core.progress import Progress
from sagellm_core.engine_core.scheduler import Scheduler
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus

__all__ = [
    "BatchType",
    "BlockManager",
    "Candidates",
    "Fork",
    "Group",
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
