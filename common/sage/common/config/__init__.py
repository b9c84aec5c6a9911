"""Ports, layered settings and network region. Each name loads its module on first use."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.common.config.network import (
        configure_hf_mirror,
        detect_china_mainland,
        ensure_hf_mirror_configured,
        get_hf_endpoint,
        get_network_region,
    )
    from sage.common.config.ports import PortChoice, PortHolder, SagePorts, port_holder
    from sage.common.config.settings import Setting, Settings

__all__ = [
    "PortChoice",
    "PortHolder",
    "SagePorts",
    "Setting",
    "Settings",
    "configure_hf_mirror",
    "detect_china_mainland",
    "ensure_hf_mirror_configured",
    "get_hf_endpoint",
    "get_network_region",
    "port_holder",
]

_MODULES = {
    "ports": ("PortChoice", "PortHolder", "SagePorts", "port_holder"),
    "settings": ("Setting", "Settings"),
    "network": (
        "configure_hf_mirror",
        "detect_china_mainland",
        "ensure_hf_mirror_configured",
        "get_hf_endpoint",
        "get_network_region",
    ),
}


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                from importlib import import_module

                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
