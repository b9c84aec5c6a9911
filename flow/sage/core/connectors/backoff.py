"""Waiting longer after each failure, with chance in it, so that many do not come back at once."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from sage.common.errors import UpstreamError

__all__ = ["Backoff", "Retry"]

log = logging.getLogger("sage.core")


@dataclass(slots=True, frozen=True)
class Retry:
    """After a lost connection: `attempts` in a row (None: without end), the first after `first` seconds, each after
    twice the time of the one before, up to `most`; every time is cut by chance to between half and all of it."""

    attempts: int | None = 10
    first: float = 0.1
    most: float = 30.0


class Backoff:
    """The failures in a row of one connection to `what`."""

    def __init__(self, retry: Retry, what: str) -> None:
        self._retry = retry
        self._what = what
        self._failures = 0

    def succeeded(self) -> None:
        """It works: the next failure is a first one."""
        self._failures = 0

    def failed(self, error: BaseException) -> float:
        """Seconds to wait before the next attempt. Raises UpstreamError when there is none left."""
        retry = self._retry
        self._failures += 1
        if retry.attempts is not None and self._failures > retry.attempts:
            raise UpstreamError(
                f"The connection to {self._what} is lost",
                cause=f"{type(error).__name__}: {error} ({self._failures} attempts)",
                hint="check that it runs and can be reached; a restart strategy begins again from the last checkpoint",
            ) from error
        delay = min(retry.most, retry.first * 2.0 ** min(self._failures - 1, 32)) * random.uniform(0.5, 1)
        log.warning("%s: %s; attempt %d in %.1f s", self._what, error, self._failures + 1, delay)
        return delay
