"""The way from a runtime to one of its nodes."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from sagellm_core.executor.process import ChildProcess
from sagellm_core.nodes.messages import NodeAnswer
from sagellm_core.nodes.state import NodeState, Role
from sagellm_core.wire import Connection

_CONNECT_WITHIN_S = 10.0


@dataclass(slots=True, frozen=True)
class NodeSpec:
    """A node: a child process, or (`address` "host:port") one that listens on another host."""

    name: str
    role: Role
    address: str = ""


@dataclass(slots=True, eq=False)
class Link:
    """A node and how to talk to it. `ends` are the times at which it went down."""

    spec: NodeSpec
    state: NodeState
    child: ChildProcess | None = None
    connection: Connection | None = None
    ends: list[float] = field(default_factory=list)

    def send(self, order: Any) -> None:
        """A node that is gone is noticed by its reader; what is sent to it is lost, as it would be a moment later."""
        if self.connection is not None:
            try:
                self.connection.send(order)
            except OSError:
                pass


def reach(host: str, port: int) -> Connection:
    """A connection to a node that listens. Raises OSError."""
    sock = socket.create_connection((host, port), _CONNECT_WITHIN_S)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(sock, NodeAnswer)
