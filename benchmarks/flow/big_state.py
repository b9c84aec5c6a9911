"""State of 10 M keys in RocksDB: resident memory, and what a checkpoint writes when a part has changed.

Takes a minute or two, and is therefore left out unless asked for (`--long`).
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.findings import Finding

_KEYS = 10_000_000
_CHANGED = 500_000
_PROGRAM = "import json; from benchmarks.flow.state import memory_numbers; print(json.dumps(memory_numbers({})))"


def measure() -> tuple[list[Finding], list[str]]:
    """In a process of its own, so that the memory is its own."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM.format(_KEYS)], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    changed = f"{found['second']:.1f} of {found['size']:.1f} MiB written"
    return [
        Finding("resident memory with 10 M keys in RocksDB, in MiB", f"{found['peak']:,.0f} MiB", found["peak"], 1024),
        Finding(
            f"checkpoint after {_CHANGED / _KEYS:.0%} of 10 M keys have changed: share of the state written",
            changed,
            found["second"] / found["size"],
            0.5,
        ),
    ], []
