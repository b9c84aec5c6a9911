"""The LLM engine's load: sequences, tokens, cache, latencies."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from sage.tui.data.model import EngineView, Snapshot
from sage.tui.format import chart, count, number_of, percent, rate
from sage.tui.widgets.draw import dim, fields, gauge, line, mark, quantile_head, quantile_row, stale
from sage.tui.widgets.panel import Panel

__all__ = ["EnginePanel"]


class EnginePanel(Panel):
    """One engine at a time; ``next_engine`` moves on when there are several."""

    def __init__(self) -> None:
        super().__init__("Engine", id="engine")
        self._index = 0

    def next_engine(self) -> None:
        """Show the next engine."""
        self._index += 1
        self._redraw()

    def lines(self, snapshot: Snapshot, width: int, height: int) -> Iterable[Content]:
        """Numbers, a line of the token rate, quantiles; what does not fit is left out from the bottom."""
        engines = snapshot.engines
        if not engines:
            self.border_title = "Engine"
            self.corner("")
            return [line(dim("No engine."))]
        engine = engines[self._index % len(engines)]
        many = f" {self._index % len(engines) + 1}/{len(engines)} [e]" if len(engines) > 1 else ""
        self.border_title = Content(f"Engine · {engine.model or engine.name}{many}").markup
        self.corner(stale(engine.fresh), bad=engine.fresh.stale)
        if engine.fresh.age_s is None:
            return [mark(engine.state), line(dim("No numbers from it yet."))]
        return _engine(engine, width, height)[:height]


def _engine(engine: EngineView, width: int, height: int) -> list[Content]:
    lines = [
        fields([("running", count(engine.running)), ("waiting", count(engine.waiting))], width),
        fields([("tokens/s", rate(engine.token_rate)), ("prompt/s", rate(engine.prompt_rate))], width),
    ]
    rows = 1 if height < 10 else height - 8
    lines += [line((row, "$primary")) for row in chart(engine.token_history, width, min(3, rows))]
    lines += [
        gauge("KV", engine.kv_usage, width),
        quantile_head(width),
        quantile_row("TTFT", engine.ttft, width),
        quantile_row("TPOT", engine.tpot, width),
    ]
    done = sum(number for _, number in engine.requests)
    bad = sum(number for reason, number in engine.requests if reason in {"error", "cancelled"})
    failed = f" · {count(bad)} failed" if bad else ""
    lines.append(line(dim(f"{number_of(done, 'request')} · {number_of(engine.tokens, 'token')}{failed}")))
    if engine.prefix_hits is not None:
        lines.append(line(dim(f"prefix cache hits {percent(engine.prefix_hits)}")))
    return lines
