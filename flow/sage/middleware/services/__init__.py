"""Services to register with `env.register_service`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.middleware.services.memory import MemoryService
    from sage.middleware.services.vdb import VDBService

__all__ = ["MemoryService", "VDBService"]


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        if name == "MemoryService":
            from sage.middleware.services import memory

            return memory.MemoryService
        if name == "VDBService":
            from sage.middleware.services import vdb

            return vdb.VDBService
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
