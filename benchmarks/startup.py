"""Start-up of the command against a bare interpreter (SPEC X1)."""

import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks.measure import Comparison, compare

SAGE = pathlib.Path(sys.executable).with_name("sage")


def run() -> list[Comparison]:
    """``sage --help`` and ``sage llm status`` beside ``python -c pass``."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"SAGE_HOME": str(pathlib.Path(home) / ".sage")}

        def call(*argv: str) -> None:
            subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

        return [
            compare(
                f"start `sage {' '.join(words)}`",
                lambda words=words: call(str(SAGE), *words),  # type: ignore[misc]
                lambda: call(sys.executable, "-c", "pass"),
                peer_name="python -c pass",
                unit="starts",
                repeat=15,
            )
            for words in (("--help",), ("llm", "status"))
        ]
