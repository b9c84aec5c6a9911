"""The engine's benchmarks. `python -m benchmarks engine`: the built-in model beside transformers, in a minute.
`make bench-engine` (`python -m benchmarks.engine`): all peers, all rows, and the report beside this file.
"""

from benchmarks.engine.builtin import run

__all__ = ["run"]
