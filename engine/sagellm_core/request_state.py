"""One request inside an `LLMEngine`: what has come so far, as events and as measurements."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

from sagellm_core.engine_core.core import CoreStats, Update
from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.messages import Metrics, Request, Response, StreamEvent, Timestamps, TokenLogprob
from sagellm_protocol.sampling import SamplingParams


@dataclass(slots=True, eq=False)
class RequestState:
    """Collects a request's updates on the event loop's side. Times are seconds of the engine's clock."""

    request: Request
    prompt: list[int]
    params: SamplingParams
    queued_at: float
    engine_id: str
    updates: asyncio.Queue[Update] = field(default_factory=asyncio.Queue)
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    token_times: list[float] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    last: Update | None = None

    @property
    def done(self) -> bool:
        return self.last is not None and self.last.finish_reason is not None

    def start_event(self) -> StreamEvent:
        return self._event("start", prompt_tokens=len(self.prompt))

    def take(self, update: Update, tokenizer: Tokenizer) -> StreamEvent | None:
        """Take in an update; the delta that it makes, if it makes one."""
        self.last = update
        if update.token is None:
            return None
        self.tokens.append(update.token.token_id)
        self.token_times.append(update.at)
        self.text.append(update.text)
        logprobs = None
        if update.token.logprob is not None:
            logprobs = [_logprob(update.token, update.token.logprob, tokenizer)]
            self.logprobs += logprobs
        return self._event("delta", chunk=update.text, chunk_tokens=[update.token.token_id], logprobs=logprobs)

    def end_event(self, stats: CoreStats) -> StreamEvent:
        assert self.last is not None
        return self._event(
            "end",
            prompt_tokens=len(self.prompt),
            output_text="".join(self.text),
            output_tokens=self.tokens,
            finish_reason=self.last.finish_reason,
            metrics=self.metrics(stats),
            error=None if self.last.finish_reason in ("stop", "length") else self.last.error,
        )

    def response(self, end: StreamEvent) -> Response:
        """The whole answer, from its end event."""
        return Response(
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            output_text=end.output_text,
            output_tokens=end.output_tokens,
            prompt_tokens=len(self.prompt),
            finish_reason=end.finish_reason or "error",
            metrics=end.metrics or Metrics(),
            logprobs=self.logprobs if self.params.logprobs is not None else None,
            error=end.error,
        )

    def metrics(self, stats: CoreStats) -> Metrics:
        """Measurements of this request so far."""
        assert self.last is not None
        times = self.token_times
        first = times[0] if times else self.last.at
        gaps = [1000 * (after - before) for before, after in pairwise(times)]
        between = sum(gaps) / len(gaps) if gaps else 0.0
        begun = self.last.scheduled_at or self.queued_at
        used = len(self.prompt) + len(self.tokens)
        return Metrics(
            ttft_ms=1000 * (first - self.queued_at) if times else 0.0,
            tbt_ms=between,
            tpot_ms=between,
            throughput_tps=len(times) / max(self.last.at - self.queued_at, 1e-9),
            error_rate=float(self.last.finish_reason == "error"),
            kv_used_tokens=used,
            kv_used_bytes=used * stats.bytes_per_token,
            prefix_hit_rate=self.last.cached_tokens / len(self.prompt),
            prefill_ms=1000 * max(first - begun, 0.0),
            decode_ms=1000 * (times[-1] - first) if times else 0.0,
            itl_list=gaps,
            timestamps=Timestamps(
                queued_at=self.queued_at, scheduled_at=begun, executed_at=first, completed_at=self.last.at
            ),
        )

    def _event(self, event: str, **fields: object) -> StreamEvent:
        return StreamEvent.model_validate(
            {
                "event": event,
                "request_id": self.request.request_id,
                "trace_id": self.request.trace_id,
                "engine_id": self.engine_id,
                **fields,
            }
        )


def _logprob(token: SampledToken, logprob: float, tokenizer: Tokenizer) -> TokenLogprob:
    top = token.top or {}
    return TokenLogprob(
        token_id=token.token_id,
        token=tokenizer.token(token.token_id),
        logprob=logprob,
        top=top,
        top_tokens={token_id: tokenizer.token(token_id) for token_id in top},
    )
