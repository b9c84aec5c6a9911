"""How one thread sleeps until another has something for it, at the cost of a flag while nobody sleeps."""

from __future__ import annotations

import threading
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """One thread sleeps; any thread rings.

    The sleeper says so first and looks once more, so that nothing that came before is missed:

        bell.arm()
        if nothing_there():
            bell.sleep(timeout)
        else:
            bell.disarm()

    Who has something puts it down first and then rings. A bell may ring for nothing: sleepers look again.
    """

    __slots__ = ("_armed", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._armed = False

    def arm(self) -> None:
        """From here on, a ring ends the sleep."""
        self._armed = True

    def disarm(self) -> None:
        """No sleep after all."""
        self._armed = False

    def sleep(self, timeout: float | None = None) -> bool:
        """Until the bell rings; False after `timeout` seconds without."""
        rung = self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        self._armed = False
        return rung

    def ring(self) -> None:
        """Wake the thread that sleeps, or is about to."""
        if self._armed:
            self._armed = False
            with suppress(RuntimeError):  # another thread has rung at the same moment
                self._lock.release()
