"""The refresh loop: looks in a thread of its own, tells the screen in the screen's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sage.tui.data import Collector, LogTail, Snapshot, Tail

__all__ = ["INTERVALS", "Feed", "Look"]

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""The refresh intervals on offer, in seconds."""

Look = Callable[[Snapshot, Tail], None]


class Feed:
    """Calls ``look(snapshot, tail)`` every ``interval`` seconds until it is closed; skips while ``paused``."""

    def __init__(self, collector: Collector, look: Look, interval: float = 1.0) -> None:
        self.interval = interval
        self.paused = False
        self.collector = collector
        self._look = look
        self._tail: LogTail | None = None
        self._wake = asyncio.Event()
        self._once = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sage-look")

    async def run(self) -> None:
        """Look for ever. Cancel it to end."""
        loop = asyncio.get_running_loop()
        while True:
            if not self.paused or self._once:
                self._once = False
                log = self._tail
                snapshot, tail = await loop.run_in_executor(self._thread, self._collect, log)
                self._look(snapshot, tail if log is self._tail else Tail())  # another log was chosen meanwhile
            try:
                await asyncio.wait_for(self._wake.wait(), self.interval)
            except TimeoutError:
                continue
            self._wake.clear()

    def _collect(self, log: LogTail | None) -> tuple[Snapshot, Tail]:
        return self.collector.collect(), log.poll() if log is not None else Tail()

    def refresh(self) -> None:
        """Look now, also while paused."""
        self._once = True
        self._wake.set()

    def pause(self) -> None:
        """Stop looking, or go on."""
        self.paused = not self.paused
        self._wake.set()

    def faster(self, steps: int) -> float:
        """Move ``steps`` along the intervals on offer (positive: shorter); returns the new one."""
        index = min(range(len(INTERVALS)), key=lambda i: abs(INTERVALS[i] - self.interval))
        self.interval = INTERVALS[min(len(INTERVALS) - 1, max(0, index - steps))]
        self._wake.set()
        return self.interval

    def follow(self, path: Path | None) -> None:
        """Follow another log from its last lines on."""
        self._tail = LogTail(path) if path is not None else None
        self.refresh()

    @property
    def selected_job(self) -> str | None:
        """The job whose operators are asked for."""
        return self.collector.selected_job

    def select_job(self, job_id: str | None) -> None:
        """Ask for this job's operators too."""
        if job_id != self.collector.selected_job:
            self.collector.selected_job = job_id
            self.refresh()

    def close(self) -> None:
        """Let go of the thread and the collector."""
        self._thread.submit(self.collector.close)
        self._thread.shutdown(wait=False)
