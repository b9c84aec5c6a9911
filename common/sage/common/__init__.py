"""The ground that everything stands on: errors, ports, settings, the `.sage/` directory, logs, the state store.

Knows nothing of the other packages. Every name loads its module on first use, so importing this costs nothing.
"""

from __future__ import annotations

from sage.common._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.common.config.ports import SagePorts
    from sage.common.config.settings import Settings
    from sage.common.errors import (
        ConfigError,
        DaemonError,
        ModelError,
        NotRunningError,
        PipelineError,
        PortInUseError,
        SageError,
        ServiceError,
        StateError,
        UpstreamError,
        UsageError,
    )
    from sage.common.home import SageHome
    from sage.common.logs import configure_logging, get_logger
    from sage.common.stack import DaemonStatus, StackStatus, read_status
    from sage.common.store import CheckpointRow, JobRow, OperatorRow, StateStore

__all__ = [
    "CheckpointRow",
    "ConfigError",
    "DaemonError",
    "DaemonStatus",
    "JobRow",
    "ModelError",
    "NotRunningError",
    "OperatorRow",
    "PipelineError",
    "PortInUseError",
    "SageError",
    "SageHome",
    "SagePorts",
    "ServiceError",
    "Settings",
    "StackStatus",
    "StateError",
    "StateStore",
    "UpstreamError",
    "UsageError",
    "__version__",
    "configure_logging",
    "get_logger",
    "read_status",
]

_MODULES = {
    "config.ports": ("SagePorts",),
    "config.settings": ("Settings",),
    "home": ("SageHome",),
    "logs": ("configure_logging", "get_logger"),
    "stack": ("DaemonStatus", "StackStatus", "read_status"),
    "store": ("CheckpointRow", "JobRow", "OperatorRow", "StateStore"),
}


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        from importlib import import_module

        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        if name in __all__:
            return getattr(import_module(f"{__name__}.errors"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
