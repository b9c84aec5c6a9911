"""Whether the record of a stack can be written, asked before anything starts: without it nobody finds the services."""

from __future__ import annotations

from sage.common.atomic import write_json
from sage.common.home import SageHome

_RECORD_CHARACTERS = 16_000


def check_room(home: SageHome) -> None:
    """Raises StateError where the disk is full or ``.sage/llm`` cannot be written."""
    probe = home.llm_dir / "room.json"
    write_json(probe, " " * _RECORD_CHARACTERS)
    probe.unlink(missing_ok=True)
