"""The state stores of operators, as the job gives them to its subtasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sage.core.runtime.clock import Clock
from sage.core.runtime.events import Batch
from sage.core.runtime.settings import StateSettings
from sage.core.state.base import KeyedStateBackend, OperatorStateBackend
from sage.core.state.configured import keyed_backend, remove_leftovers
from sage.core.state.groups import group_range
from sage.core.state.memory import MemoryKeyedState
from sage.core.state.operator_state import OperatorState

__all__ = ["ConfiguredStates", "MemoryStates", "OperatorStates", "StateProvider"]


@dataclass(slots=True, frozen=True)
class OperatorStates:
    """The stores of one operator in one subtask; `keyed` is None where there are no keys."""

    keyed: KeyedStateBackend | None
    operator: OperatorStateBackend


class StateProvider(Protocol):
    """Makes the stores of a job; those of a restored one are filled."""

    def open(self, operator_id: str, subtask: int, parallelism: int, *, keyed: bool) -> OperatorStates:
        """The stores of one operator in one subtask. Called once for each, before the operator is made."""

    def in_flight(self, operator_id: str) -> list[list[tuple[int, Batch]]]:
        """What was on its way to each subtask of the task that begins with that operator, by port."""

    def finished(self, operator_id: str) -> bool:
        """Whether that operator had come to the end of its input when the job was restored."""


class MemoryStates:
    """Empty stores in memory."""

    def open(self, operator_id: str, subtask: int, parallelism: int, *, keyed: bool) -> OperatorStates:
        """See StateProvider."""
        return OperatorStates(MemoryKeyedState(*group_range(subtask, parallelism)) if keyed else None, OperatorState())

    def in_flight(self, operator_id: str) -> list[list[tuple[int, Batch]]]:
        """Nothing."""
        return []

    def finished(self, operator_id: str) -> bool:
        """Never."""
        return False


class ConfiguredStates(MemoryStates):
    """Empty stores of the backend that the settings name. Disk backends work in `folder`, which is made if need be."""

    def __init__(self, settings: StateSettings, folder: Path, clock: Clock | None = None) -> None:
        self._settings = settings
        self._folder = Path(settings.directory).expanduser() if settings.directory is not None else folder
        self._clock = clock
        if settings.backend != "memory":
            remove_leftovers(self._folder)

    def open(self, operator_id: str, subtask: int, parallelism: int, *, keyed: bool) -> OperatorStates:
        """See StateProvider. Raises StateError when the backend is not installed."""
        backend = keyed_backend(self._settings, self._folder, subtask, parallelism, self._clock) if keyed else None
        return OperatorStates(backend, OperatorState())
