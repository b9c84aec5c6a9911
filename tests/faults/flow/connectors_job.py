"""A pipeline for the tests that kill: lines of a file → files or a table, each exactly once.

Arguments: `text`, `single`, `parquet`, `sql` or `key`, the input, the output, the parallelism, the pause after each
fifty records. `KILL=phase:count` makes the process kill itself when it comes to that phase for the count-th time.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tests.faults.flow.exactly_once_job import kill_at

from sage.core.api import LocalEnvironment
from sage.core.connectors.files.parts import PartsWriter
from sage.core.connectors.sql.sink import _TwoPhase

PHASES: dict[str, tuple[Any, str, bool]] = {
    "write": (PartsWriter, "write", True),
    "prepare": (PartsWriter, "prepare", False),
    "prepared": (PartsWriter, "prepare", True),
    "commit": (PartsWriter, "commit", False),
    "committed": (PartsWriter, "commit", True),
    "recover": (PartsWriter, "recover", False),
    "sql-prepared": (_TwoPhase, "prepare", True),
    "sql-commit": (_TwoPhase, "commit", False),
    "sql-committed": (_TwoPhase, "commit", True),
}


class Slow:
    """A short pause now and then."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._seen = 0

    def __call__(self, line: str) -> dict[str, Any]:
        self._seen += 1
        if self._seen % 50 == 0:
            time.sleep(self._pause)
        return {"n": int(line), "text": f"line {line}"}


def main(kind: str, source: str, output: str, parallelism: int, pause: float) -> None:
    env = LocalEnvironment(
        "connectors", config={"checkpoint.interval": "30ms", "checkpoint.timeout": "20s", "parallelism": parallelism}
    )
    rows = env.from_text(source, parallelism=parallelism).map(Slow(pause))
    if kind == "text":
        rows.map(lambda row: row["n"]).write_text(output, exactly_once=True)
    elif kind == "single":
        rows.map(lambda row: row["n"]).write_text(output)
    elif kind == "parquet":
        rows.write_parquet(output)
    else:
        rows.write_sql(output, "numbers", key="n" if kind == "key" else ())
    env.submit()


if __name__ == "__main__":
    wanted = os.environ.get("KILL")
    if wanted:
        phase, _, number = wanted.partition(":")
        owner, method, after = PHASES[phase]
        kill_at(owner, method, int(number), after=after)
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
