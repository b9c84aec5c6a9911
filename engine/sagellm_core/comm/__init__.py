"""Collective operations among the ranks of one engine."""

from sagellm_core.comm.base import Communicator, SingleProcess

__all__ = ["Communicator", "SingleProcess"]
