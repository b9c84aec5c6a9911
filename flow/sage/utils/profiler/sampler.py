"""A thread that looks, many times a second, at what the tasks of a job are doing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

import psutil

from sage.core.runtime.bell import Bell
from sage.core.runtime.channel import InputGate
from sage.core.runtime.task import Task
from sage.utils.profiler.flame import Flame, StackFrame

__all__ = ["Sampler"]

_ENOUGH = 50  # samples of a task at work
_MEMORY_EVERY = 0.05  # seconds
_WAITING = frozenset(function.__code__ for function in (InputGate._wait_for_room, Bell.sleep))
_RUNTIME = StackFrame("(runtime)")


@dataclass(slots=True)
class _Seen:
    """Of one task: processor seconds in all, and those that samples found in each operator (by number in the plan)."""

    cpu_s: float = 0.0
    found: int = 0
    by_operator: dict[int, float] = field(default_factory=dict)


class Sampler:
    """A context manager: samples `running()` (tasks and their threads) every `interval` seconds while it is open.

    Meanwhile threads hand over the interpreter lock more often, so that the sampler gets its turn.
    """

    def __init__(self, running: Callable[[], list[tuple[Task, threading.Thread]]], interval: float) -> None:
        self.flame = Flame(interval)
        self._seen: dict[Task, _Seen] = {}
        self.samples = 0
        self.start_memory = self.peak_memory = psutil.Process().memory_info().rss
        self._running = running
        self._interval = interval
        self._cpu: dict[int, float] = {}
        self._switch = sys.getswitchinterval()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sage-profiler", daemon=True)

    def __enter__(self) -> Sampler:
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch, self._interval / 10))  # so that busy threads let the sampler in
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        sys.setswitchinterval(self._switch)

    def _run(self) -> None:
        process, next_memory = psutil.Process(), 0.0
        while not self._over.wait(self._interval):
            now = time.perf_counter()
            self._sample()
            if now >= next_memory:
                self.peak_memory = max(self.peak_memory, process.memory_info().rss)
                next_memory = now + _MEMORY_EVERY
        self.peak_memory = max(self.peak_memory, process.memory_info().rss)

    def cpu(self) -> tuple[dict[int, float], float]:
        """Processor seconds of each operator, by its number in the plan, and what is left: the runtime between them.

        What a task used is exact. Its operators share that as the samples found them; where these are few, because they
        mostly met it waiting, as their own time.
        """
        shares: dict[int, float] = {}
        total = 0.0
        for task, seen in self._seen.items():
            total += seen.cpu_s
            parts = seen.by_operator if seen.found >= _ENOUGH else _by_time(task, seen.cpu_s)
            for number, seconds in parts.items():
                shares[number] = shares.get(number, 0.0) + seconds
        return shares, max(0.0, total - sum(shares.values()))

    def _sample(self) -> None:
        frames = sys._current_frames()
        self.samples += 1
        for task, thread in self._running():
            frame = frames.get(thread.ident or 0)
            if frame is None:
                continue
            index, stack = _stack(task, frame)
            cpu = self._cpu_since(thread)
            seen = self._seen.setdefault(task, _Seen())
            seen.cpu_s += cpu
            if index is not None:
                seen.found += 1
                seen.by_operator[index] = seen.by_operator.get(index, 0.0) + cpu
            if stack and (index is not None or cpu > 0):  # waiting for input is no work
                self.flame.add(stack)

    def _cpu_since(self, thread: threading.Thread) -> float:
        """Processor seconds of the thread since the last look."""
        number = thread.native_id
        used = thread_cpu(number) if number is not None else None
        if number is None or used is None:
            return 0.0
        before = self._cpu.get(number, 0.0)  # threads of a job begin with it
        self._cpu[number] = used
        return used - before


def _by_time(task: Task, cpu_s: float) -> dict[int, float]:
    busy = {operator.plan.node.index: operator.busy_s for operator in task.chain.operators}
    total = sum(busy.values())
    return {number: min(seconds, cpu_s * seconds / total) for number, seconds in busy.items()} if total else {}


def thread_cpu(native_id: int) -> float | None:
    """Processor seconds of a thread of this process (Linux: its CPU clock, as pthread_getcpuclockid makes it); None
    where it has ended, and on other systems."""
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime((~native_id << 3) | 6)
    except OSError:
        return None


def _stack(task: Task, innermost: FrameType) -> tuple[int | None, tuple[StackFrame, ...]]:
    """The operator at work (None: the runtime between them), and the frames inside it under its name."""
    frames: list[StackFrame] = []
    frame: FrameType | None = innermost
    while frame is not None:
        operator = task.chain.operator_in(frame)
        if operator is not None:
            node = operator.plan.node
            return node.index, (StackFrame(node.name), *reversed(frames))
        code = frame.f_code
        if code in _WAITING:  # for a receiver, or for input
            return None, ()
        frames.append(StackFrame(code.co_qualname, code.co_filename, code.co_firstlineno))
        frame = frame.f_back
    return None, (_RUNTIME, *reversed(frames))
