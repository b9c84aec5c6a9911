"""What a peer's process and the harness say to each other: one JSON object a line, in and out. Standard library alone.

    → {"do": "load", "model": FOLDER, "precision": "bf16", "threads": 2, …}
    ← {"seconds": 1.9, "note": "bfloat16"}
    → {"do": "run", "prompts": [[5, 8, …], …], "max_tokens": 64}
    ← {"tokens": 1024, "wall": 7.1, "cpu": 14.0}
    ← {"error": "…"}   instead, when it cannot be done

A peer's libraries may print what they like: their standard output is sent to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, Protocol


class Peer(Protocol):
    """An engine with a model. `run` is called as often as the harness likes."""

    def load(self, **options: Any) -> str:
        """Get ready to run; returns a note for the report (type of the weights, say)."""
        ...

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        """Continue all prompts at once, greedily, by exactly `max_tokens` each; returns how many tokens came."""
        ...


def serve(peer: Peer) -> None:
    """Answer commands until standard input ends, or whoever started this process does."""
    _die_with_parent()
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answer = _answer(peer, json.loads(line))
            except Exception as error:  # whatever a library raises becomes a line of the report
                answer = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
            answers.write(json.dumps(answer) + "\n")


def _die_with_parent() -> None:
    """A frozen process sees no end of its input: on Linux the kernel ends it (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _answer(peer: Peer, command: dict[str, Any]) -> dict[str, Any]:
    what = command.pop("do")
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "load":
        note = peer.load(**command)
        return {"seconds": time.perf_counter() - wall, "note": note}
    tokens = peer.run(**command)
    return {"tokens": tokens, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
