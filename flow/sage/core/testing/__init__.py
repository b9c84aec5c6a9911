"""What tests of pipelines and operators need; nothing here sleeps.

    from sage.core.testing import assert_stream, OperatorHarness, MarkedSource, PAUSE

- `assert_stream(stream, [..])` runs a pipeline and compares what comes out.
- `OperatorHarness` runs one operator by hand: records, watermarks, the clock, checkpoints, restores.
- `MarkedSource` gives records and obeys marks among them: PAUSE, ABORT, END.
- `virtual_time()` puts pipelines under a `ManualClock`.
"""

from sage.core.testing.clock import ManualClock, virtual_time
from sage.core.testing.harness import OperatorHarness
from sage.core.testing.sources import ABORT, END, PAUSE, Mark, MarkedSource, SourceAborted
from sage.core.testing.streams import assert_stream, collect_stream

__all__ = [
    "ABORT",
    "END",
    "PAUSE",
    "ManualClock",
    "Mark",
    "MarkedSource",
    "OperatorHarness",
    "SourceAborted",
    "assert_stream",
    "collect_stream",
    "virtual_time",
]
