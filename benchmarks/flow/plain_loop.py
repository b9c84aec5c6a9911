"""map → filter → map over integers: the dataflow engine against a plain Python loop (SPEC K7)."""

import os
import pathlib
import tempfile

from benchmarks.measure import Comparison, compare

RECORDS = 1_000_000


def plain() -> list[int]:
    """What one would write without an engine."""
    out = []
    for x in range(RECORDS):
        y = x * 2
        if y % 3:
            out.append(y + 1)
    return out


def run() -> list[Comparison]:
    """One comparison; both sides give the same list."""
    from sage.core.api import LocalEnvironment

    def ours() -> list[int]:
        out: list[int] = []
        env = LocalEnvironment("bench-map")
        env.from_collection(range(RECORDS)).map(lambda x: x * 2).filter(lambda y: y % 3 != 0).map(lambda y: y + 1).sink(
            out.append
        )
        env.submit()
        return out

    with tempfile.TemporaryDirectory() as home:
        os.environ["SAGE_HOME"] = str(pathlib.Path(home) / ".sage")
        if ours() != plain():
            raise AssertionError("the two sides disagree")
        return [
            compare(
                "flow: map → filter → map, 1 M ints",
                ours,
                plain,
                peer_name="plain Python loop",
                unit="records",
                units=RECORDS,
            )
        ]
