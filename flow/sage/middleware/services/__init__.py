"""Services to register with `env.register_service`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.middleware.services.vdb import VDBService

__all__ = ["VDBService"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from sage.middleware.services import vdb

        return getattr(vdb, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
