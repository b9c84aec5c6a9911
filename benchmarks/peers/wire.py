"""What a peer's process and the harness say to each other: one JSON object a line, in and out. Standard library alone.

    → {"do": NAME, …}                       calls the peer's method NAME with the rest as keywords
    ← {"result": …, "wall": 7.1, "cpu": 14.0, "rss": 93454336, "peak": 99311616}
    ← {"error": "…"}                        instead, when it cannot be done

wall and cpu: seconds of the call, processor time with that of finished child processes; rss, peak: resident
bytes after it, and the most that there were.
A peer's libraries may print what they like: their standard output is sent to standard error.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def serve(peer: object) -> None:
    """Answer commands until standard input ends, or whoever started this process does."""
    _die_with_parent()
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answer = _answer(peer, json.loads(line))
            except Exception as error:  # whatever a library raises becomes a line of the report
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
            answers.write(json.dumps(answer) + "\n")


def _die_with_parent() -> None:
    """A frozen process sees no end of its input: on Linux the kernel ends it (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _answer(peer: object, command: dict[str, Any]) -> dict[str, Any]:
    method = getattr(peer, command.pop("do"))
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu()
    result = method(**command)
    return {"result": result, "wall": time.perf_counter() - wall, "cpu": _cpu() - cpu, "rss": _rss(), "peak": _peak()}


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _rss() -> int:
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return _peak()
