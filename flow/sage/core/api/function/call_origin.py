"""On whose behalf a service is called: the job, the operator, and the position of the record there.

Positions count the records that a subtask of an operator has taken; they are part of checkpoints. So a record that is
processed again after a failure has the position that it had before, and a call made for it can be known again.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["AnswerLog", "CallOrigin", "current_origin", "idempotency_key", "origin_variable"]


class AnswerLog(Protocol):
    """Where answers of services are recorded, or come from."""

    def answered(self, key: bytes, alike: bytes) -> tuple[bool, Any]:
        """Whether the answer of that call is to be taken from here, and which it is; raises a recorded error.

        `alike` is the same for equal calls of an operator, at whatever record.
        """

    def keep(self, key: bytes, alike: bytes, answer: Any, error: BaseException | None) -> None:
        """A service has answered."""


@dataclass(slots=True)
class CallOrigin:
    """One record in one subtask of an operator. `position` counts from 0 and moves on where records take turns.

    `log` records the answers of services, or gives recorded ones.
    """

    job: str
    operator_id: str
    subtask: int
    position: int = -1
    log: AnswerLog | None = None
    _seen: dict[bytes, int] | None = None

    def advance(self) -> None:
        """The next record."""
        self.position += 1
        self._seen = None

    def occurrence(self, digest: bytes) -> int:
        """How often this record has made the same call before."""
        if self._seen is None:
            self._seen = {}
        before = self._seen.get(digest, 0)
        self._seen[digest] = before + 1
        return before

    def key(self, digest: bytes) -> bytes:
        """What stands for this call and no other, in every run of the job. To be asked for once a call."""
        where = f"{self.job}\0{self.operator_id}\0{self.subtask}\0{self.position}\0{self.occurrence(digest)}\0"
        return hashlib.sha256(where.encode("utf-8", "surrogateescape") + digest).digest()[:20]


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
