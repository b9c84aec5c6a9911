"""Starts a planned stack through the supervisor, says how it goes, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sage.cli.output import say
from sage.cli.signals import term_like_ctrl_c
from sage.cli.stack.plan import StackPlan
from sage.common.config.ports import SagePorts
from sage.common.errors import DaemonError, SageError
from sage.common.home import SageHome
from sage.common.stack import DaemonStatus, StackStatus, read_status
from sage.supervisor import DaemonSpec, SupervisorClient

_POLL_SECONDS = 0.1
_HOPELESS = ("failed", "crash-loop", "dead")


def launch(
    home: SageHome, plan: StackPlan, before: StackStatus, on_event: Callable[[DaemonStatus], None]
) -> StackStatus:
    """Start what ``plan`` names beside what runs already; return when all of it is ready.

    Raises DaemonError when a daemon does not come up; what this call started is then stopped again, and so it is on
    Ctrl-C (KeyboardInterrupt goes on to the caller). Services that ran before stay as they were.
    """
    client = SupervisorClient(home)
    try:
        with term_like_ctrl_c():
            with _interrupt_later():
                client.ensure_running()
            waiting = [daemon.name for daemon in before.daemons if daemon.state == "backing-off"]
            if waiting and before.supervisor_alive:
                client.stop(waiting)
            client.start(plan.specs, wait=True, on_event=on_event, notes=plan.notes)
            return _all_ready(home, plan)
    except (SageError, KeyboardInterrupt) as error:
        say(
            "Interrupted; stopping what was started …"
            if isinstance(error, KeyboardInterrupt)
            else "Stopping the rest …"
        )
        with _no_signals():
            _try_take_down(home, plan.specs, before)
        raise


def _try_take_down(home: SageHome, specs: list[DaemonSpec], before: StackStatus) -> None:
    """Take down, but let the first error be the one that is reported."""
    try:
        take_down(home, specs, before)
    except (SageError, OSError) as error:
        say(f"That did not succeed: {error}. See what runs:  sage llm status")


def take_down(home: SageHome, specs: list[DaemonSpec], before: StackStatus) -> None:
    """Stop the daemons of ``specs``, and the supervisor too where nothing ran before."""
    if not before.running and not before.supervisor_alive:
        SupervisorClient(home).stop()
        return
    known = {daemon.name for daemon in read_status(home).daemons}
    names = [spec.name for spec in specs if spec.name in known]
    if names:
        SupervisorClient(home).stop(names)


def _all_ready(home: SageHome, plan: StackPlan) -> StackStatus:
    """Wait also for daemons that somebody else is just starting; raise DaemonError for one that cannot come up."""
    deadline = time.monotonic() + max([spec.ready_timeout_s for spec in plan.specs], default=60)
    while True:
        stack = read_status(home)
        coming = [daemon for daemon in stack.daemons if daemon.name in plan.wanted and daemon.state != "ready"]
        if not coming and plan.wanted <= {daemon.name for daemon in stack.daemons}:
            return stack
        if not stack.supervisor_alive:
            raise DaemonError("The services were stopped while they started", hint="sage llm serve")
        if time.monotonic() > deadline or any(daemon.state in _HOPELESS for daemon in coming):
            raise not_ready(coming)
        time.sleep(_POLL_SECONDS)


def lost_a_port(plan: StackPlan, error: DaemonError) -> bool:
    """Whether a start failed because a port that was free when the plan was made was taken by then.

    The daemon's own words tell, or the port is still taken now that nothing of the plan runs. It need not be: two
    stacks that each took a port of the other have both given up theirs.
    """
    said = f"{error} {error.cause}"
    return any(
        f"Port {spec.port} is already in use" in said or not SagePorts.is_available(spec.port, spec.host)
        for spec in plan.specs
    )


def not_ready(coming: list[DaemonStatus]) -> DaemonError:
    """The error for daemons that were started and did not come up: of the one that failed first of all."""
    daemon = max(coming, key=lambda daemon: daemon.state in _HOPELESS)
    title = f"{daemon.name} is not ready (it is {daemon.state})"
    return DaemonError(title, cause=daemon.last_error, hint=f"sage llm logs {daemon.name}")


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Ctrl-C waits until the block is done (a supervisor that is half started cannot be told to stop); the second
    Ctrl-C does not wait."""
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    held = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SageError:
        if not asked:  # else the signal has reached the half-started one too: that is why it failed
            raise
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


@contextmanager
def _no_signals() -> Iterator[None]:
    """Cleaning up is not interrupted a second time; it is bounded by the daemons' own grace."""
    held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
