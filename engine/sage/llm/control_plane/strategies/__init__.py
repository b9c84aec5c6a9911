"""Scheduling policies: who of those that wait for an engine goes next, and who is told at once that it is too late."""

from __future__ import annotations

from sage.llm.control_plane.strategies.adaptive import AdaptivePolicy
from sage.llm.control_plane.strategies.base import AgeingPolicy, Refusal, SchedulingPolicy, Ticket
from sage.llm.control_plane.strategies.fair import FairPolicy
from sage.llm.control_plane.strategies.fifo import FIFOPolicy
from sage.llm.control_plane.strategies.hybrid import HybridPolicy
from sage.llm.control_plane.strategies.priority import PriorityPolicy
from sage.llm.control_plane.strategies.registry import create_policy, policy_names, register_policy
from sage.llm.control_plane.strategies.slo_aware import SLOAwarePolicy

__all__ = [
    "AdaptivePolicy",
    "AgeingPolicy",
    "FIFOPolicy",
    "FairPolicy",
    "HybridPolicy",
    "PriorityPolicy",
    "Refusal",
    "SLOAwarePolicy",
    "SchedulingPolicy",
    "Ticket",
    "create_policy",
    "policy_names",
    "register_policy",
]
