"""The gateway's traffic: rate, latencies, errors, queue, routes."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from sage.tui.data.model import EmbeddingView, GatewayView, Snapshot
from sage.tui.format import chart, clip, count, latency, number_of, percent, rate
from sage.tui.widgets.draw import dim, fields, line, mark, quantile_head, quantile_row, stale
from sage.tui.widgets.panel import Panel

__all__ = ["EmbeddingPanel", "GatewayPanel"]


class GatewayPanel(Panel):
    """Requests through the gateway."""

    def lines(self, snapshot: Snapshot, width: int, height: int) -> Iterable[Content]:
        """Numbers, a line of the request rate, quantiles, then the busiest routes."""
        gateway = snapshot.gateway
        if gateway is None:
            self.corner("")
            return [line(dim("No gateway."))]
        self.corner(stale(gateway.fresh), bad=gateway.fresh.stale)
        if gateway.fresh.age_s is None:
            return [mark(gateway.state), line(dim("No numbers from it yet."))]
        return _gateway(gateway, snapshot.embeddings, width, height)[:height]


def _gateway(gateway: GatewayView, embeddings: tuple[EmbeddingView, ...], width: int, height: int) -> list[Content]:
    lines = [
        fields([("requests/s", rate(gateway.rate)), ("in flight", count(gateway.inflight))], width),
        fields([("errors", percent(gateway.error_ratio)), ("queue", count(gateway.queue))], width),
    ]
    rows = 1 if height < 11 else min(3, height - 9)
    lines += [line((row, "$primary")) for row in chart(gateway.rate_history, width, rows)]
    lines += [
        quantile_head(width),
        quantile_row("Answer", gateway.latency, width),
        quantile_row("1st tok", gateway.ttft, width),
    ]
    rejected = f" · {count(gateway.rejected)} refused" if gateway.rejected else ""
    lines.append(line(dim(f"{number_of(gateway.total, 'request')} · {number_of(gateway.errors, 'error')}{rejected}")))
    if height < 9:
        lines += [
            line(dim("embed/s "), (rate(view.text_rate), "bold"), dim(f"  {number_of(view.texts, 'text')}"))
            for view in embeddings[:1]
        ]
    for route in sorted(gateway.routes, key=lambda route: -route.total):
        numbers = f"{rate(route.rate)}/s".rjust(9) + latency(route.latency.p95).rjust(9)
        name = clip(route.route, width - len(numbers))
        lines.append(line(dim(name.ljust(width - len(numbers))), numbers))
    return lines


class EmbeddingPanel(Panel):
    """The embedding server; drawn only where there is room for a fourth box."""

    def lines(self, snapshot: Snapshot, width: int, height: int) -> Iterable[Content]:
        """Texts, batches, latencies."""
        if not snapshot.embeddings:
            self.corner("")
            return [line(dim("No embedding server."))]
        view = snapshot.embeddings[0]
        self.border_title = Content(f"Embedding · {view.model or view.name}").markup
        self.corner(stale(view.fresh), bad=view.fresh.stale)
        if view.fresh.age_s is None:
            return [mark(view.state), line(dim("No numbers from it yet."))]
        rows = 1 if height < 10 else min(3, height - 5)
        return [
            fields([("texts/s", rate(view.text_rate)), ("a batch", rate(view.batch_size))], width),
            *(line((row, "$primary")) for row in chart(view.text_history, width, rows)),
            quantile_head(width),
            quantile_row("Answer", view.latency, width),
            line(dim(f"{number_of(view.texts, 'text')} embedded")),
        ][:height]
