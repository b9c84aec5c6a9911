"""What a request's headers tell the scheduler."""

from __future__ import annotations

import hashlib

import msgspec

from sage.llm.asgi import Scope, header
from sage.llm.control_plane.classifier import InferenceCall, deadline_ms

DEADLINE_HEADER = b"x-sage-deadline-ms"
SESSION_HEADER = b"x-sage-session-id"


def with_headers(call: InferenceCall, scope: Scope) -> InferenceCall:
    """Return the call with the deadline and the session of the headers, which win over the body's.

    Raises ApiError 400 for a deadline that is no number of milliseconds.
    """
    deadline, session = header(scope, DEADLINE_HEADER), header(scope, SESSION_HEADER)
    if deadline is None and session is None:
        return call
    return msgspec.structs.replace(
        call,
        deadline_ms=call.deadline_ms if deadline is None else deadline_ms(deadline),
        session=call.session if session is None else session.decode("latin-1")[:200],
    )


def key_of(scope: Scope) -> str:
    """Return what stands for the request's API key: a hash of it, "" where it has none.

    The key is what the client claims: only where keys are checked before, shares per key mean shares per client.
    """
    given = header(scope, b"authorization") or header(scope, b"x-api-key")
    return hashlib.blake2b(given, digest_size=8).hexdigest() if given else ""
