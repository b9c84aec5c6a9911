"""The operator harness with RocksDB settings so small that little data goes every way, and functions as operators get
them."""

import pathlib
from typing import Any

from tests.helpers.state_backends import BACKENDS

from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind
from sage.core.state.base import KeyedStateBackend
from sage.core.state.groups import group_range
from sage.core.testing import ManualClock
from sage.core.testing import OperatorHarness as _Harness
from sage.core.testing.harness import Snapshots

__all__ = ["ManualClock", "OperatorHarness", "Snapshots", "spec"]


class OperatorHarness(_Harness):
    """See sage.core.testing."""

    def _keyed(self, place: pathlib.Path) -> KeyedStateBackend:
        first, last = group_range(self.subtask, self.parallelism)
        return BACKENDS[self.state](place, first, last, self.clock)


def spec(function: Any, kind: FunctionKind | OperatorKind) -> FunctionSpec:
    """A user's function, as operators get it."""
    return FunctionSpec.checked(function, kind, Origin("test", 1))
