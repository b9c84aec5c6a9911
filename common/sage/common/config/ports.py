"""The one file that holds port numbers (SPEC P1, P2)."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection
from typing import Any, ClassVar, NamedTuple

from sage.common.errors import ConfigError, PortInUseError

__all__ = ["PortChoice", "PortHolder", "SagePorts", "port_holder"]

LOOPBACK = "127.0.0.1"
_ROUND_TRIP_TIMEOUT_S = 1.0


class PortHolder(NamedTuple):
    """Who listens on a port. pid 0: somebody whom this user may not see; `command` then says so."""

    pid: int
    command: str


class PortChoice(NamedTuple):
    """The port to use, the one that was wanted, and why they differ ("" when they do not)."""

    port: int
    wanted: int
    reason: str

    @property
    def moved(self) -> bool:
        return self.port != self.wanted


class SagePorts:
    """Port numbers of the stack and what can be said about them on this machine."""

    GATEWAY_DEFAULT = 8889
    EDGE_DEFAULT = 8899
    LLM_DEFAULT = 8001
    LLM_SECONDARY = 8002
    LLM_WSL_FALLBACK = 8901
    EMBEDDING_DEFAULT = 8090
    EMBEDDING_SECONDARY = 8091
    BENCHMARK_LLM = 8901
    BENCHMARK_EMBEDDING = 8950
    BENCHMARK_API = 8951
    RANGE_START = 8900
    RANGE_END = 8999

    fallback_reason: ClassVar[str | None] = None
    """Why the last `get_recommended_llm_port()` did not give LLM_DEFAULT; None when it did."""

    @staticmethod
    def is_wsl() -> bool:
        """Whether this is Windows' Linux (WSL)."""
        if not sys.platform.startswith("linux"):
            return False
        try:
            with open("/proc/sys/kernel/osrelease", encoding="ascii", errors="replace") as file:
                return "microsoft" in file.read().lower()
        except OSError:
            return "WSL_DISTRO_NAME" in os.environ

    @classmethod
    def is_available(cls, port: int, host: str = LOOPBACK) -> bool:
        """Whether a server could listen on the port: told by a real bind and listen.

        On WSL also by one HTTP round trip to that listener, because there a port may be bound and still refuse.
        """
        return cls.why_unavailable(port, host) is None

    @classmethod
    def why_unavailable(cls, port: int, host: str = LOOPBACK) -> str | None:
        """None when the port is free; else the reason in words. Raises ConfigError for a number that is no port."""
        check_port(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # Linux: with SO_REUSEADDR a port whose last connections are in TIME_WAIT is free, and one with a
            # listener is not. Two sockets may then both bind while neither listens, hence the listen().
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen(1)
            except (OSError, OverflowError) as error:
                return _words(error)
            if sys.platform == "darwin" and _answers_elsewhere(port):
                return "in use"  # there a bind to 127.0.0.1 succeeds beside a listener on all addresses
            if cls.is_wsl() and not round_trip(listener):
                return "listens but refuses connections (WSL2)"
        return None

    @classmethod
    def get_recommended_llm_port(cls) -> int:
        """A port for the LLM engine that is free now: LLM_DEFAULT, else LLM_WSL_FALLBACK, else the first free one.

        Why it is not LLM_DEFAULT stands in `SagePorts.fallback_reason`. Raises ConfigError when nothing is free.
        """
        choice = cls.choose(cls.LLM_DEFAULT, fallbacks=(cls.LLM_WSL_FALLBACK, cls.LLM_SECONDARY))
        cls.fallback_reason = choice.reason or None
        return choice.port

    @classmethod
    def choose(
        cls,
        default: int,
        explicit: int | None = None,
        *,
        host: str = LOOPBACK,
        fallbacks: Collection[int] = (),
        taken: Collection[int] = (),
    ) -> PortChoice:
        """The port for a daemon. An explicit one is taken as it is or refused; a default one moves to a free one.

        `taken`: ports already promised to other daemons that do not listen yet.
        Raises PortInUseError (naming the holder) or ConfigError.
        """
        if explicit is not None:
            why = (
                "promised to another daemon of the stack" if explicit in taken else cls.why_unavailable(explicit, host)
            )
            if why == "in use":
                raise PortInUseError(explicit, port_holder(explicit))
            if why is not None:
                raise ConfigError(f"Port {explicit} cannot be used", cause=why, hint="Choose another with --port")
            return PortChoice(explicit, explicit, "")
        why = "promised to another daemon of the stack" if default in taken else cls.why_unavailable(default, host)
        if why is None:
            return PortChoice(default, default, "")
        holder = port_holder(default) if why == "in use" else None
        who = f" by pid {holder.pid} ({holder.command})" if holder and holder.pid else ""
        for port in (*fallbacks, *range(default + 1, min(default + 10, 65536))):
            if port not in taken and cls.is_available(port, host):
                return PortChoice(port, default, f"port {default} is {why}{who}; using {port}")
        port = cls.find_available_port(host=host, taken=taken)
        return PortChoice(port, default, f"port {default} is {why}{who}; using {port}")

    @classmethod
    def get_llm_ports(cls) -> list[int]:
        """Where an LLM engine may be found, the likeliest first on this machine."""
        ports = [cls.LLM_DEFAULT, cls.LLM_SECONDARY, cls.LLM_WSL_FALLBACK]
        return ports[::-1] if cls.is_wsl() else ports

    @classmethod
    def get_embedding_ports(cls) -> list[int]:
        return [cls.EMBEDDING_DEFAULT, cls.EMBEDDING_SECONDARY]

    @classmethod
    def get_benchmark_ports(cls) -> list[int]:
        return [cls.BENCHMARK_LLM, cls.BENCHMARK_EMBEDDING, cls.BENCHMARK_API]

    @classmethod
    def find_available_port(
        cls, start: int = RANGE_START, end: int = RANGE_END, *, host: str = LOOPBACK, taken: Collection[int] = ()
    ) -> int:
        """The first free port of start..end (both included). Raises ConfigError when there is none."""
        for port in range(start, end + 1):
            if port not in taken and cls.is_available(port, host):
                return port
        raise ConfigError(
            f"No port from {start} to {end} is free",
            hint="Stop something that listens there, or choose a port with --port",
        )

    @staticmethod
    def get_from_env(name: str, default: int) -> int:
        """The port in the environment variable `name`, else `default`. Raises ConfigError when it is no port."""
        text = os.environ.get(name, "").strip()
        return parse_port(text, name) if text else default

    @classmethod
    def check_port_status(cls, port: int, host: str = LOOPBACK) -> dict[str, Any]:
        """{"port", "available", "reason", "holder_pid", "holder_command"} as plain JSON values."""
        why = cls.why_unavailable(port, host)
        holder = port_holder(port) if why == "in use" else None
        return {
            "port": port,
            "available": why is None,
            "reason": why or "",
            "holder_pid": holder.pid if holder and holder.pid else None,
            "holder_command": holder.command if holder else "",
        }

    @classmethod
    def diagnose(cls) -> dict[str, Any]:
        """What check-env and a bug report want to know: every port of ours, WSL, the LLM port to use and why."""
        named = {
            "gateway": cls.GATEWAY_DEFAULT,
            "edge": cls.EDGE_DEFAULT,
            "llm": cls.LLM_DEFAULT,
            "llm-secondary": cls.LLM_SECONDARY,
            "llm-wsl-fallback": cls.LLM_WSL_FALLBACK,
            "embedding": cls.EMBEDDING_DEFAULT,
            "embedding-secondary": cls.EMBEDDING_SECONDARY,
        }
        recommended = cls.get_recommended_llm_port()
        return {
            "wsl": cls.is_wsl(),
            "ports": {name: cls.check_port_status(port) for name, port in named.items()},
            "recommended_llm_port": recommended,
            "fallback_reason": cls.fallback_reason or "",
        }


def check_port(port: int) -> None:
    """Raise ConfigError unless `port` is a TCP port that can be bound by number."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"{port} is not a port", cause="ports go from 1 to 65535", hint="Choose one with --port")


def parse_port(text: str, origin: str) -> int:
    """A port from a user's text; `origin` names where it stood. Raises ConfigError."""
    try:
        port = int(text)
        check_port(port)
    except (ValueError, ConfigError):
        raise ConfigError(
            f"{origin} is not a port: {text!r}",
            cause="ports are whole numbers from 1 to 65535",
            hint=f"Correct {origin}",
        ) from None
    return port


def port_holder(port: int) -> PortHolder | None:
    """Who listens on this TCP port; None when nobody does."""
    from sage.common.config import port_holders

    return port_holders.find(port)


def round_trip(listener: socket.socket) -> bool:
    """Serve one HTTP request to ourselves over a listening socket; False when it does not get through.

    One thread is enough: the kernel queues the connection and both small messages.
    """
    request, reply = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    listener.settimeout(_ROUND_TRIP_TIMEOUT_S)
    try:
        with socket.create_connection(listener.getsockname()[:2], timeout=_ROUND_TRIP_TIMEOUT_S) as client:
            client.sendall(request)
            server, _ = listener.accept()
            with server:
                server.settimeout(_ROUND_TRIP_TIMEOUT_S)
                if server.recv(len(request)) != request:
                    return False
                server.sendall(reply)
            return client.recv(len(reply)) == reply
    except OSError:
        return False


def _answers_elsewhere(port: int) -> bool:
    from sage.common.config import port_holders

    holder = port_holders.find(port)
    return holder is not None and holder.pid != os.getpid()


def _words(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "in use"
    if number == errno.EACCES:
        return "reserved (ports below 1024 need privileges)"
    if number == errno.EADDRNOTAVAIL:
        return "not available: this machine has no such address"
    return str(error)
