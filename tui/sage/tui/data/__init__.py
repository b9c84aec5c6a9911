"""What the dashboard knows, without a screen: one :class:`Collector`, one immutable :class:`Snapshot` a look.

Importing it loads neither Textual nor any other heavy package.
"""

from __future__ import annotations

from sage.tui.data.collector import Collector
from sage.tui.data.model import (
    AcceleratorView,
    CheckpointView,
    DaemonView,
    EmbeddingView,
    EngineView,
    Freshness,
    GatewayView,
    JobView,
    OperatorView,
    Quantiles,
    RouteView,
    Snapshot,
    StackView,
    SystemView,
)
from sage.tui.data.tail import LogTail, Tail, level_of, log_files

__all__ = [
    "AcceleratorView",
    "CheckpointView",
    "Collector",
    "DaemonView",
    "EmbeddingView",
    "EngineView",
    "Freshness",
    "GatewayView",
    "JobView",
    "LogTail",
    "OperatorView",
    "Quantiles",
    "RouteView",
    "Snapshot",
    "StackView",
    "SystemView",
    "Tail",
    "level_of",
    "log_files",
]
