"""Percentiles of a round of load, for people and for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sage.llm.bench.load import Load, Outcome

_SHARES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Round:
    """One load and its outcomes."""

    load: Load
    outcomes: Sequence[Outcome]

    @property
    def good(self) -> list[Outcome]:
        """The requests that were answered."""
        return [outcome for outcome in self.outcomes if not outcome.error]

    @property
    def errors(self) -> dict[str, int]:
        """How often each error came, the most frequent first."""
        return dict(Counter(outcome.error for outcome in self.outcomes if outcome.error).most_common())

    def summary(self) -> dict[str, Any]:
        """The numbers: rates over the time from the first request to the last answer; times in milliseconds."""
        good = self.good
        seconds = max(one.ended_at for one in self.outcomes) - min(one.sent_at for one in self.outcomes)
        output_tokens = sum(one.output_tokens for one in good)
        prompt_tokens = sum(one.prompt_tokens for one in good)
        gaps = [after - before for one in good for before, after in pairwise(one.chunks)]
        return {
            "concurrency": self.load.concurrency,
            "requests": len(self.outcomes),
            "answered": len(good),
            "errors": self.errors,
            "seconds": seconds,
            "requests_per_second": len(good) / seconds,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "prompt_tokens_per_second": prompt_tokens / seconds,
            "output_tokens_per_second": output_tokens / seconds,
            "ttft_ms": _spread([one.ttft for one in good]),
            "tpot_ms": _spread([tpot for one in good if (tpot := one.tpot) is not None]),
            "gap_ms": _spread(gaps),
            "request_ms": _spread([one.ended_at - one.sent_at for one in good]),
        }


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles in milliseconds; None where there is nothing."""
    if not seconds:
        return None
    ordered = sorted(1000 * each for each in seconds)
    ranks = {f"p{share}": ordered[math.ceil(len(ordered) * share / 100) - 1] for share in _SHARES}
    return {"mean": sum(ordered) / len(ordered), **ranks, "max": ordered[-1]}


HEADER = (
    "at once",
    "answered",
    "req/s",
    "tok/s",
    "prompt tok/s",
    "TTFT p50/p95/p99 ms",
    "TPOT p50/p95/p99 ms",
    "whole p50/p95 s",
)


def table(rounds: Sequence[Round]) -> list[tuple[str, ...]]:
    """A row a round, under `HEADER`."""
    return [_row(each.summary()) for each in rounds]


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    whole = found["request_ms"]
    return (
        str(found["concurrency"]),
        f"{found['answered']}/{found['requests']}",
        f"{found['requests_per_second']:.2f}",
        f"{found['output_tokens_per_second']:,.0f}",
        f"{found['prompt_tokens_per_second']:,.0f}",
        _three(found["ttft_ms"], 0),
        _three(found["tpot_ms"], 1),
        "-" if whole is None else f"{whole['p50'] / 1000:.2f}/{whole['p95'] / 1000:.2f}",
    )


def _three(spread: dict[str, float] | None, digits: int) -> str:
    return "-" if spread is None else "/".join(f"{spread[name]:.{digits}f}" for name in ("p50", "p95", "p99"))
