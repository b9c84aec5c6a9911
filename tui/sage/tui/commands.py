"""What the dashboard lets ``sage`` do: the same commands that a person would type, as separate processes.

The dashboard itself changes nothing; whatever a command says on stderr is what the user is told.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sage.common.home import SageHome

__all__ = ["Outcome", "find_sage", "sage"]

TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (None when it could not run or was cut off) and what it said."""

    code: int | None
    said: str

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.code == 0


async def sage(home: SageHome, *words: str) -> Outcome:
    """Run ``sage`` with ``words`` for this home; never raises for what the command does."""
    command = find_sage()
    if command is None:
        return Outcome(None, "The sage command is not installed beside this Python.")
    process = await asyncio.create_subprocess_exec(
        command,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"SAGE_HOME": str(home.root), "NO_COLOR": "1"},
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Outcome(None, f"sage {' '.join(words)} did not end within {TIMEOUT_S:.0f} s.")
    return Outcome(process.returncode, said.decode("utf-8", "replace").strip())


def find_sage() -> str | None:
    """The ``sage`` beside the running Python, else the one on the path; None when there is neither."""
    beside = Path(sys.executable).with_name("sage")
    return str(beside) if beside.is_file() else shutil.which("sage")
