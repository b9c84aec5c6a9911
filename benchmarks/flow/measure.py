"""The records a second of every side in rows a, b and c: all sides of a row take turns, round after round."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import EnvironmentUnavailableError
from benchmarks.flow.sides import Side
from benchmarks.peer import PeerFailedError, PeerProcess

_SCRIPTS = Path(__file__).parent / "peers"


@dataclass(slots=True)
class Cell:
    """One side in one row: what its runs gave, or why there are none."""

    side: Side
    runs: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""

    @property
    def rate(self) -> float:
        """Records a second of the best run, 0 without one."""
        return self.side.records / min(run["wall"] for run in self.runs) if self.runs else 0.0

    @property
    def median(self) -> float:
        """Records a second of the median run, 0 without one."""
        return self.side.records / statistics.median(run["wall"] for run in self.runs) if self.runs else 0.0

    @property
    def cpu(self) -> float:
        """Processor seconds a record of the best run, 0 without one."""
        return min(run["cpu"] for run in self.runs) / self.side.records if self.runs else 0.0

    @property
    def rss(self) -> int:
        """The most resident bytes after a run, input and output included."""
        return max((run["rss"] for run in self.runs), default=0)

    @property
    def lost(self) -> int:
        """The most events that a run's windows left out."""
        return max((run.get("lost", 0) for run in self.runs), default=0)


class Processes:
    """The processes of the sides, one a script, started when first needed and ended together."""

    def __init__(self) -> None:
        self._running: dict[str, PeerProcess] = {}
        self._failed: dict[str, str] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.close()

    def turn(self, cell: Cell, scale: float) -> None:
        """One run of a side."""
        side = cell.side
        try:
            process = self._process(side)
            process.ask("prepare", row=side.row, records=round(side.records * scale))
            answer = process.ask("run", row=side.row, how=side.how, mode=side.mode)
            cell.runs.append({"rss": answer["rss"]} | answer["result"])
        except (PeerFailedError, EnvironmentUnavailableError) as error:
            cell.failure = str(error)
            if isinstance(error, EnvironmentUnavailableError) or not error.alive:
                self._failed[side.script] = str(error)

    def _process(self, side: Side) -> PeerProcess:
        if side.script in self._failed:
            raise PeerFailedError(self._failed[side.script])
        if side.script not in self._running:
            script = _SCRIPTS / f"{side.script}.py"
            self._running[side.script] = PeerProcess(f"flow-{side.script}", side.environment, script)
        return self._running[side.script]


def measure(sides: Iterable[Side], *, scale: float = 1.0) -> list[Cell]:
    """All rounds of all rows. `scale`: the share of the records, for a quick look."""
    cells = [Cell(side) for side in sides]
    with Processes() as processes:
        for row in dict.fromkeys(cell.side.row for cell in cells):
            taking_part = [cell for cell in cells if cell.side.row == row]
            for number in range(max(cell.side.rounds for cell in taking_part)):
                print(f"row {row}, round {number + 1}", file=sys.stderr, flush=True)
                for cell in taking_part:
                    if number < cell.side.rounds and not cell.failure:
                        processes.turn(cell, scale)
    if scale != 1.0:
        for cell in cells:
            cell.runs = [run | {"wall": run["wall"] / scale, "cpu": run["cpu"] / scale} for run in cell.runs]
    return cells
