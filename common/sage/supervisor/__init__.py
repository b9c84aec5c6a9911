"""One process per `.sage/` that starts, watches, restarts and stops the local daemons; and its client.

    client = SupervisorClient(SageHome.find())
    client.start([DaemonSpec("gateway", "gateway", (sys.executable, "-m", "sage.llm.gateway", …), host, port)])
    client.stop()

`read_status` needs no supervisor. Importing this package is cheap: names load on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.common.stack import DaemonStatus, StackStatus, read_status
    from sage.supervisor.client import SupervisorClient
    from sage.supervisor.rescue import stop_without_supervisor
    from sage.supervisor.spec import DaemonSpec

__all__ = [
    "DaemonSpec",
    "DaemonStatus",
    "StackStatus",
    "SupervisorClient",
    "read_status",
    "stop_without_supervisor",
]

_MODULES = {
    "DaemonSpec": "sage.supervisor.spec",
    "DaemonStatus": "sage.common.stack",
    "StackStatus": "sage.common.stack",
    "SupervisorClient": "sage.supervisor.client",
    "read_status": "sage.common.stack",
    "stop_without_supervisor": "sage.supervisor.rescue",
}


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
