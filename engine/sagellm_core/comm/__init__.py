"""The ranks of one engine: where a worker stands among them, and what they exchange.

`sagellm_core.comm.distributed` joins them over torch.distributed; it is not imported before there are several.
"""

from sagellm_core.comm.base import ALONE, Communicator, Place, SingleProcess, SingleStage, Stage

__all__ = ["ALONE", "Communicator", "Place", "SingleProcess", "SingleStage", "Stage"]
