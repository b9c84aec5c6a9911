"""Starts a planned stack through the supervisor, says how it goes, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sage.cli.output import say
from sage.cli.stack.plan import StackPlan
from sage.common.errors import DaemonError, SageError
from sage.common.home import SageHome
from sage.common.stack import DaemonStatus, StackStatus, read_status
from sage.supervisor import DaemonSpec, SupervisorClient, stop_without_supervisor

_POLL_SECONDS = 0.1


def launch(
    home: SageHome, plan: StackPlan, before: StackStatus, on_event: Callable[[DaemonStatus], None]
) -> StackStatus:
    """Start what ``plan`` names beside what runs already; return when all of it is ready.

    Raises DaemonError when a daemon does not come up; what this call started is then stopped again, and so it is on
    Ctrl-C (KeyboardInterrupt goes on to the caller). Services that ran before stay as they were.
    """
    client = SupervisorClient(home)
    try:
        with _term_like_ctrl_c():
            client.ensure_running()
            client.start(plan.specs, wait=True, on_event=on_event)
            return _all_ready(home, plan.specs)
    except (SageError, KeyboardInterrupt):
        with _no_signals():
            take_down(home, plan.specs, before)
        raise


def take_down(home: SageHome, specs: list[DaemonSpec], before: StackStatus) -> None:
    """Stop the daemons of ``specs``, and the supervisor too where nothing ran before."""
    stop_everything = not before.running and not before.supervisor_alive
    stop_stack(home, None if stop_everything else [spec.name for spec in specs])


def stop_stack(home: SageHome, names: list[str] | None) -> None:
    """Stop the named daemons (None: all, and the supervisor), whether or not a supervisor lives."""
    if not read_status(home).supervisor_alive:
        stop_without_supervisor(home, names)
        return
    client = SupervisorClient(home)
    client.stop(names)
    if names is None:
        client.shutdown()


def _all_ready(home: SageHome, specs: list[DaemonSpec]) -> StackStatus:
    """Wait for daemons that somebody else is just starting; raise DaemonError for one that cannot come up."""
    deadline = time.monotonic() + max([spec.ready_timeout_s for spec in specs], default=60)
    while True:
        stack = read_status(home)
        coming = [d for d in stack.daemons if d.state not in ("ready", "stopped")]
        if not coming:
            return stack
        if time.monotonic() > deadline or any(d.state in ("failed", "crash-loop", "dead") for d in coming):
            worst = coming[0]
            raise DaemonError(
                f"{worst.name} is not ready (it is {worst.state})",
                cause=worst.last_error,
                hint=f"sage llm logs {worst.name}",
            )
        time.sleep(_POLL_SECONDS)


@contextmanager
def _term_like_ctrl_c() -> Iterator[None]:
    """SIGTERM while starting ends like Ctrl-C: with everything stopped again."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _no_signals() -> Iterator[None]:
    """Cleaning up is not interrupted a second time; it is bounded by the daemons' own grace."""
    say("Interrupted or failed; stopping what was started …")
    held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
