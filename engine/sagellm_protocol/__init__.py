"""What goes into an engine and what comes out of it: requests, responses, stream events, sampling, errors.

Nothing here computes; every part of SAGE that talks to an engine (the engine itself, the gateway, the client) may
import it. Names are loaded on first use, because pydantic costs more than the rest of a short command together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagellm_protocol.errors import Error, ErrorCode
    from sagellm_protocol.messages import (
        Choice,
        FinishReason,
        Message,
        Metrics,
        Request,
        Response,
        StreamEvent,
        Timestamps,
        TokenLogprob,
    )
    from sagellm_protocol.sampling import DecodingStrategy, Grammar, SamplingParams

__all__ = [
    "Choice",
    "DecodingStrategy",
    "Error",
    "ErrorCode",
    "FinishReason",
    "Grammar",
    "Message",
    "Metrics",
    "Request",
    "Response",
    "SamplingParams",
    "StreamEvent",
    "Timestamps",
    "TokenLogprob",
]

_HOME = {
    "DecodingStrategy": "sampling",
    "Error": "errors",
    "ErrorCode": "errors",
    "Grammar": "sampling",
    "SamplingParams": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'messages')}"), name)


def __dir__() -> list[str]:
    return __all__
