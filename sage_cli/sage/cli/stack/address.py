"""The address on which the gateway shall listen."""

from __future__ import annotations

import ipaddress
import socket

from sage.common.config.ports import LOOPBACK
from sage.common.errors import UsageError


def check_host(host: str) -> str:
    """A note where other machines can reach ``host``, else "".

    Raises UsageError where this machine has no such address, or none is named.
    """
    if not host:  # to the kernel this means every address: too much for an empty variable in a script
        raise UsageError("--host names no address", hint=f"sage llm serve --host {LOOPBACK}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            address = probe.getsockname()[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"This machine cannot listen on {host!r}", cause=reason, hint=f"sage llm serve --host {LOOPBACK}"
        ) from error
    if ipaddress.ip_address(address).is_loopback:
        return ""
    return f"the gateway listens on {host}: other machines can reach it, and it asks for no key"
