"""On whose behalf a service is called: the job, the operator, and the position of the record there.

Positions count the records that a subtask of an operator has taken; they are part of checkpoints. So a record that is
processed again after a failure has the position that it had before, and a call made for it can be known again.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count

__all__ = ["CallOrigin", "current_origin", "idempotency_key", "origin_variable"]


@dataclass(slots=True)
class CallOrigin:
    """One record in one subtask of an operator. `position` counts from 0 and moves on where records take turns.

    `run` names the job and its beginning: a job that goes on from a checkpoint has that of before, one that begins anew
    another.
    """

    run: str
    operator_id: str
    subtask: int
    position: int = -1
    _calls: dict[bytes, count[int]] | None = None

    def advance(self) -> None:
        """The next record."""
        self.position += 1
        self._calls = None

    def fixed(self) -> CallOrigin:
        """This record, for a call that may run when the operator is at the next."""
        if self._calls is None:
            self._calls = {}
        return CallOrigin(self.run, self.operator_id, self.subtask, self.position, self._calls)

    def key(self, digest: bytes) -> bytes:
        """What stands for a call with this content and no other, however often the job is begun again from a
        checkpoint. Equal calls of a record are told apart by their number, so ask once a call."""
        if self._calls is None:
            self._calls = {}
        number = next(self._calls.setdefault(digest, count()))
        where = f"{self.run}\0{self.operator_id}\0{self.subtask}\0{self.position}\0{number}\0"
        return hashlib.sha256(where.encode("utf-8", "surrogateescape") + digest).digest()[:20]

    def alike(self, digest: bytes) -> bytes:
        """The same for equal calls of the operator, at whatever record and in whatever subtask."""
        return hashlib.sha256(f"{self.run}\0{self.operator_id}\0".encode() + digest).digest()[:20]


origin_variable: ContextVar[CallOrigin | None] = ContextVar("sage_call_origin", default=None)


def current_origin() -> CallOrigin | None:
    """The record for which this code runs; None outside of operators."""
    return origin_variable.get()


def idempotency_key(request: bytes) -> str | None:
    """A text for the `Idempotency-Key` header of a request with this content; None outside of operators.

    It is made of job, operator, subtask, record position and content: a replay after a failure sends the same key again
    for the same request, and never the key of another one. Ask for it once a call, before any retries.
    """
    origin = current_origin()
    if origin is None:
        return None
    return f"sage-{origin.key(b'request' + hashlib.sha256(request).digest()).hex()}"
