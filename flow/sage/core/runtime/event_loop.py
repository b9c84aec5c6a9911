"""One thread with an asyncio event loop for each job that runs async functions, shared by all its operators."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

__all__ = ["EventLoopThread", "shared_loop"]

_JOIN = 2.0


class EventLoopThread:
    """Runs while somebody uses it: `acquire` starts it, the last `release` stops it and cancels what is left."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._users = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> asyncio.AbstractEventLoop:
        """The running loop; each call is matched by one `release`."""
        with self._lock:
            self._users += 1
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def release(self) -> bool:
        """One user less; True when that was the last."""
        with self._lock:
            self._users -= 1
            if self._users:
                return False
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(_JOIN)
        return True


class _Shared:
    """The loops by job."""

    def __init__(self) -> None:
        self._loops: dict[str, EventLoopThread] = {}
        self._lock = threading.Lock()

    def acquire(self, job_id: str) -> asyncio.AbstractEventLoop:
        """The loop of a job, started for its first user."""
        with self._lock:
            return self._loops.setdefault(job_id, EventLoopThread(f"sage-async-{job_id}")).acquire()

    def release(self, job_id: str) -> None:
        """One user less; the last one ends the thread."""
        with self._lock:
            if self._loops[job_id].release():
                del self._loops[job_id]


shared_loop = _Shared()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        with suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
