"""What it costs to be there: import, resident memory beside bytewax, metrics."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environments import OURS
from benchmarks.findings import Finding
from benchmarks.peer import PeerProcess
from sage.core.api import LocalEnvironment

_SCRIPTS = Path(__file__).parent / "peers"
_RECORDS = 1_000_000
_ROUNDS = 9
_QUIET = {"metrics.interval": "1h", "metrics.latency_interval": "off"}


def measure() -> tuple[list[Finding], list[str]]:
    """Three findings."""
    return [_import(), _memory(), _metrics()], []


def _import() -> Finding:
    """Processor time of `import sage.core.api` with what a pipeline of it uses, above a bare interpreter's."""
    with_it, bare = [], []
    for _ in range(7):
        with_it.append(_cpu_of("from sage.core.api import LocalEnvironment"))
        bare.append(_cpu_of("pass"))
    ours = 1e3 * statistics.median(with_it)
    whole = f"{ours:.0f} ms with the interpreter, which takes {1e3 * statistics.median(bare):.0f}"
    return Finding("CPU of `import sage.core.api`, in ms", whole, ours, 150)


def _cpu_of(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _memory() -> Finding:
    """The most resident memory of a fresh process in which row b runs."""
    ours = _peak(OURS, "ours", "process", "memory")
    theirs = _peak("flow-bytewax", "with_bytewax", "", "memory")
    return Finding(
        "resident memory at its peak, row b, 1 M records: ours / bytewax",
        f"{ours / 2**20:,.0f} / {theirs / 2**20:,.0f} MiB",
        ours / theirs,
        1.5,
    )


def _peak(environment: str, script: str, how: str, mode: str) -> int:
    process = PeerProcess(f"flow-memory-{script}", environment, _SCRIPTS / f"{script}.py")
    try:
        process.ask("prepare", row="b", records=_RECORDS)
        return int(process.ask("run", row="b", how=how, mode=mode)["peak"])
    finally:
        process.close()


def _metrics() -> Finding:
    """Row a with metrics as they are by default (counters, latency markers, rows to state.db) over row a without the
    latter two: counters cannot be turned off."""
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as home:
        os.environ["SAGE_HOME"] = str(Path(home) / ".sage")
        for _ in range(_ROUNDS):
            for quiet in (False, True):
                times[quiet].append(_row_a({**_QUIET} if quiet else {}))
    usual, quiet_s = min(times[False]), min(times[True])
    return Finding(
        "CPU with metrics over CPU without reporting and latency markers, row a",
        f"{1e3 * usual:,.0f} / {1e3 * quiet_s:,.0f} ms",
        usual / quiet_s,
        1.03,
    )


def _row_a(config: dict[str, str]) -> float:
    out: list[int] = []
    env = LocalEnvironment("bench-metrics", config)
    stream = env.from_collection(range(_RECORDS)).map(lambda x: x * 2).filter(lambda y: y % 3 != 0)
    stream.map(lambda y: y + 1).sink(out.append)
    started = time.process_time()
    env.submit()
    return time.process_time() - started
