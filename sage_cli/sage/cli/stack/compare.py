"""Whether a stack that runs is the one that was asked for."""

from __future__ import annotations

from sage.cli.stack.models import find_embedding_model, find_llm_model
from sage.cli.stack.plan import EMBEDDING, ENGINE, GATEWAY, StackRequest
from sage.common.config.ports import LOOPBACK
from sage.common.stack import StackStatus


def differences(request: StackRequest, running: StackStatus) -> list[str]:
    """What was asked for and does not hold of the daemons that run; [] when the request asks for nothing else.

    Raises ModelError for a model that is not there.
    """
    found = []
    wanted = (
        (ENGINE, request.model and find_llm_model(request.model).name, request.port),
        (
            EMBEDDING,
            request.embedding_model and find_embedding_model(request.embedding_model).name,
            request.embedding_port,
        ),
        (GATEWAY, None, request.gateway_port),
    )
    for name, model, port in wanted:
        daemon = running.daemon(name)
        if daemon is None or not daemon.running:
            continue
        if model and daemon.model != model:
            found.append(f"{name} serves {daemon.model}, not {model}")
        if port and daemon.port != port:
            found.append(f"{name} listens on port {daemon.port}, not {port}")
        if name == EMBEDDING and request.no_embedding:
            found.append("the embedding server runs")
        if name == GATEWAY and request.host not in (LOOPBACK, daemon.host):
            found.append(f"{name} listens on {daemon.host}, not on {request.host}")
    return found
