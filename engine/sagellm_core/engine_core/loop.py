"""What an engine asks of whatever runs its requests: the step loop of one model, or a runtime of several nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import CoreStats, Submission
from sagellm_core.executor.base import Executor
from sagellm_protocol.sampling import SamplingParams


class RequestLoop(Protocol):
    """Requests go in from any thread; updates come out through a callback that the loop was made with."""

    stats: CoreStats
    failure: BaseException | None
    asleep: bool

    @property
    def healthy(self) -> bool:
        """Whether requests can be taken."""
        ...

    def run(self, on_ready: Callable[[BaseException | None], None]) -> None:
        """Load, report through `on_ready` (None, or why not), then serve requests on this thread until `stop`."""
        ...

    def stop(self) -> None: ...

    def refusal(self, num_prompt: int, max_total: int | None, sampling: SamplingParams) -> str | None:
        """Why a prompt of this length can never run; None when it can."""
        ...

    def submit(self, submission: Submission) -> None:
        """Hand in a request. Raises EngineError (unavailable) when the loop has ended."""
        ...

    def cancel(self, seq_id: str) -> None:
        """End a request soon; unknown ids are passed over."""
        ...

    def sleep(self) -> Future[None]: ...

    def wake(self) -> Future[None]: ...

    def reload(self, new_executor: Callable[[], Executor], limits: SchedulerConfig) -> Future[None]: ...


def start_thread(
    loop: RequestLoop, on_ready: Callable[[BaseException | None], None], on_stopped: Callable[[], None]
) -> threading.Thread:
    """Run a loop on its own thread, which does not outlive the process."""

    def run() -> None:
        try:
            loop.run(on_ready)
        finally:
            on_stopped()

    thread = threading.Thread(target=run, name="sage-engine-steps", daemon=True)
    thread.start()
    return thread
