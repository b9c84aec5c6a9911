"""The dashboard's widgets, one a module."""

from __future__ import annotations

from sage.tui.widgets.daemons import DaemonTable
from sage.tui.widgets.engine import EnginePanel
from sage.tui.widgets.gateway import EmbeddingPanel, GatewayPanel
from sage.tui.widgets.logs import LogsPanel
from sage.tui.widgets.pipelines import JobDetail, JobTable, OperatorTable
from sage.tui.widgets.system import SystemPanel
from sage.tui.widgets.topbar import TopBar

__all__ = [
    "DaemonTable",
    "EmbeddingPanel",
    "EnginePanel",
    "GatewayPanel",
    "JobDetail",
    "JobTable",
    "LogsPanel",
    "OperatorTable",
    "SystemPanel",
    "TopBar",
]
