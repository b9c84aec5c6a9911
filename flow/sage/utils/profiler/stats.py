"""What a profile tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from sage.utils.profiler.flame import Flame

__all__ = ["MemoryUsage", "OperatorProfile", "PipelineStats"]


@dataclass(slots=True, frozen=True)
class MemoryUsage:
    """Bytes: of the process when the pipeline began, at most, and the keyed state of its operators at the end."""

    start: int
    peak: int
    state: int

    def __str__(self) -> str:
        grown = f"{_size(self.peak - self.start)} more than before"
        return f"{_size(self.peak)} at most ({grown}), state {_size(self.state)}"


@dataclass(slots=True, frozen=True)
class OperatorProfile:
    """One operator, over all its subtasks (seconds).

    `wall_s`: inside the operator and what it calls; waiting for an answer or for the interpreter lock counts. `cpu_s`:
    on a processor; None where the system does not tell it of single threads. `busy`, `idle` and `blocked` are shares
    (0 to 1) of the time of its subtasks; the last two are its task's: without input, and back-pressured.
    """

    operator: str
    kind: str
    parallelism: int
    records_in: int
    records_out: int
    wall_s: float
    cpu_s: float | None
    busy: float
    idle: float
    blocked: float


@dataclass(slots=True, frozen=True)
class PipelineStats:
    """A profile. `operators` stand in the order in which records pass them; `runtime_cpu_s` was spent between them.

    `print(stats)` shows a table.
    """

    job: str
    elapsed_s: float
    operators: list[OperatorProfile]
    memory_usage: MemoryUsage
    runtime_cpu_s: float | None
    samples: int
    flame: Flame = field(repr=False)

    @property
    def bottleneck(self) -> str | None:
        """The operator whose subtasks are busy for the largest share of the time: what limits the rate. None where
        nothing was ever busy."""
        busiest = max(self.operators, key=lambda row: row.busy, default=None)
        return busiest.operator if busiest is not None and busiest.busy > 0 else None

    def __str__(self) -> str:
        width = max([8, *(len(row.operator) for row in self.operators)])
        lines = [f"{'operator':<{width}}  {'in':>11} {'wall':>8} {'cpu':>8} {'busy':>5} {'idle':>5} {'blocked':>7}"]
        for row in self.operators:
            cpu = "–" if row.cpu_s is None else f"{row.cpu_s:.2f} s"
            mark = "  ← bottleneck" if row.operator == self.bottleneck else ""
            lines.append(
                f"{row.operator:<{width}}  {row.records_in or row.records_out:>11,} {row.wall_s:>6.2f} s {cpu:>8}"
                f" {row.busy:>5.0%} {row.idle:>5.0%} {row.blocked:>7.0%}{mark}"
            )
        lines.append(f"{self.job}: {self.elapsed_s:.2f} s, {self.samples:,} samples, memory {self.memory_usage}")
        return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
