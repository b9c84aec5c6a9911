"""The dataflow engine's benchmarks. `python -m benchmarks flow`: beside a plain Python loop, in seconds.
`make bench-flow` (`python -m benchmarks.flow`): all peers, all rows, and the report beside this file.
"""

from benchmarks.flow.plain_loop import run

__all__ = ["run"]
