"""The dashboard's screens, one a module."""

from __future__ import annotations

from sage.tui.screens.detail import DetailScreen
from sage.tui.screens.help import HelpScreen
from sage.tui.screens.monitor import MonitorScreen

__all__ = ["DetailScreen", "HelpScreen", "MonitorScreen"]
