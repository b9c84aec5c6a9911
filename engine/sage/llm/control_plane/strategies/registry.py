"""Policies by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from sage.common.errors import ConfigError
from sage.llm.control_plane.strategies.adaptive import AdaptivePolicy
from sage.llm.control_plane.strategies.base import Clock, SchedulingPolicy
from sage.llm.control_plane.strategies.fair import FairPolicy
from sage.llm.control_plane.strategies.fifo import FIFOPolicy
from sage.llm.control_plane.strategies.hybrid import HybridPolicy
from sage.llm.control_plane.strategies.priority import PriorityPolicy
from sage.llm.control_plane.strategies.slo_aware import SLOAwarePolicy

PolicyFactory = Callable[[Clock], SchedulingPolicy]

DEFAULT_POLICY = "fifo"

_FACTORIES: dict[str, PolicyFactory] = {
    one.name: one for one in (FIFOPolicy, FairPolicy, PriorityPolicy, SLOAwarePolicy, AdaptivePolicy, HybridPolicy)
}


def policy_names() -> tuple[str, ...]:
    """Return the names of all policies."""
    return tuple(_FACTORIES)


def register_policy(name: str, factory: PolicyFactory) -> None:
    """Add a policy under a new name; raises ConfigError where the name is taken."""
    if name in _FACTORIES:
        raise ConfigError(f"There is a scheduling policy {name!r} already", hint="Register it under another name.")
    _FACTORIES[name] = factory


def create_policy(name: str, clock: Clock) -> SchedulingPolicy:
    """Return a new policy; raises ConfigError for an unknown name, naming the nearest."""
    factory = _FACTORIES.get(name)
    if factory is None:
        near = get_close_matches(name.lower().replace("-", "_"), _FACTORIES, n=1, cutoff=0.4)
        raise ConfigError(
            f"There is no scheduling policy {name!r}",
            cause=f"There are: {', '.join(_FACTORIES)}.",
            hint=f"Did you mean {near[0]!r}?" if near else f"{DEFAULT_POLICY!r} serves in the order of arrival.",
        )
    return factory(clock)
