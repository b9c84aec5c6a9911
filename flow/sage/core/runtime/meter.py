"""How a task's time is spent: in its operators, waiting for receivers (back-pressured), or waiting for input (idle)."""

from __future__ import annotations

import time

__all__ = ["Meter"]


class Meter:
    """Seconds since the start of a task. Stages that call each other are measured without what they call.

    Written by the task's thread; read by any.
    """

    __slots__ = ("blocked_s", "busy_s", "idle_s", "inner_s", "sending_since", "taking_since")

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.blocked_s = 0.0
        self.idle_s = 0.0
        self.inner_s = 0.0
        self.taking_since = 0.0  # time.perf_counter() when the task began to wait for input; 0: it does not
        self.sending_since = 0.0  # when it gave the batch that it still gives to a receiver

    def waits(self) -> tuple[float, float]:
        """Seconds idle and back-pressured, with those of a wait that still lasts; from any thread."""
        now = time.perf_counter()
        taking, sending = self.taking_since, self.sending_since
        return (
            self.idle_s + (now - taking if taking else 0.0),
            self.blocked_s + (now - sending if sending else 0.0),
        )

    def enter(self) -> tuple[float, float]:
        """A stage begins. Give what is returned to `leave`."""
        outer, self.inner_s = self.inner_s, 0.0
        return outer, time.perf_counter()

    def leave(self, entered: tuple[float, float]) -> float:
        """A stage ends: the seconds that were its own."""
        outer, started = entered
        elapsed = time.perf_counter() - started
        own = elapsed - self.inner_s
        self.inner_s = outer + elapsed
        self.busy_s += own
        return own

    def waited(self, seconds: float) -> None:
        """A receiver was full."""
        self.blocked_s += seconds
        self.inner_s += seconds
