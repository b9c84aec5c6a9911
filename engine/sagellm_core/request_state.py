"""One request inside an `LLMEngine`: what has come so far, as events and as measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sagellm_core.engine_core.groups import num_answers
from sagellm_core.engine_core.messages import CoreStats, Update
from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.mailbox import Mailbox
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.errors import Error
from sagellm_protocol.messages import (
    Choice,
    FinishReason,
    Metrics,
    Request,
    Response,
    StreamEvent,
    Timestamps,
    TokenLogprob,
)
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams


@dataclass(slots=True, eq=False)
class _Answer:
    """One of the answers to a request. `total` is the sum of its tokens' log-probabilities."""

    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    total: float = 0.0
    score: float = 0.0
    finish_reason: FinishReason | None = None
    error: Error | None = None

    @property
    def mean_logprob(self) -> float:
        if self.finish_reason == "error" or not self.tokens:
            return float("-inf")
        return self.total / len(self.tokens)


@dataclass(slots=True)
class Delta:
    """What a `delta` event says, as plain data: one is made for each token. The names are the event's."""

    index: int
    chunk: str
    chunk_tokens: list[int]
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    prompt_logprobs: list[TokenLogprob] | None = None


News = StreamEvent | Delta
Hear = Callable[[list[News]], None]


class RequestState:
    """Collects a request's updates on the event loop's side. Times are seconds of the engine's clock.

    `seq_id` is its name in the engine core: who gives the id of a request again gets no news of the one before.
    `params` are what the request asked for, `comm_before` is the engine's `CoreStats.comm` when it came. Where the best
    of several are given, nothing is shown before all have ended. `hear` is called with news where somebody listens, and
    `over` with the end before that.
    """

    __slots__ = (
        "_answers", "_begun", "_cached_tokens", "_drafts", "_engine_id", "_last", "_open", "_prompt_logprobs",
        "_selects", "_wants_logprobs", "comm_before", "hear", "over", "params", "prompt", "queued_at", "request",
        "seq_id", "several", "updates", "vector",
    )  # fmt: skip

    def __init__(
        self, request: Request, prompt: list[int], params: SamplingParams, queued_at: float, engine_id: str
    ) -> None:
        self.request = request
        self.seq_id = request.request_id
        self.prompt = prompt
        self.params = params
        self.queued_at = queued_at
        self.updates: Mailbox[Update] = Mailbox()
        self.hear: Hear | None = None
        self.over: Callable[[StreamEvent], None] | None = None
        self.vector: list[float] | None = None
        self._engine_id = engine_id
        self._answers = [_Answer() for _ in range(num_answers(params))]
        self._open = len(self._answers)
        self.several = len(self._answers) > 1
        self._selects = len(self._answers) > params.n
        self._prompt_logprobs: list[TokenLogprob] | None = None
        self._last: Update | None = None
        self._begun = 0.0
        self._cached_tokens = 0
        self._drafts: dict[int, tuple[int, int]] = {}
        self._wants_logprobs = params.logprobs is not None
        self.comm_before = (0, 0, 0.0)

    @property
    def done(self) -> bool:
        return self._open == 0

    def start_event(self) -> StreamEvent:
        return self._event("start", prompt_tokens=len(self.prompt))

    def take(self, update: Update, tokenizer: Tokenizer) -> None:
        """Take in an update."""
        self._last = update
        if not self._begun:
            self._begun = update.scheduled_at
        if update.cached_tokens > self._cached_tokens:
            self._cached_tokens = update.cached_tokens
        if update.drafts[0]:
            self._drafts[update.index] = update.drafts
        if update.vector is not None:
            self.vector = update.vector
        if update.prompt_logprobs is not None:
            self._prompt_logprobs = [_logprob(token, tokenizer) for token in update.prompt_logprobs]
        answer = self._answers[update.index]
        if update.finish_reason is not None:
            self._open -= answer.finish_reason is None
            answer.finish_reason, answer.error, answer.score = update.finish_reason, update.error, update.score
        answer.text.append(update.text)
        for token in update.tokens:
            answer.times.append(update.at)
            answer.tokens.append(token.token_id)
            if token.logprob is not None:
                answer.total += token.logprob
        if self._wants_logprobs:
            answer.logprobs += [_logprob(token, tokenizer) for token in update.tokens]

    def news(self, updates: Sequence[Update], tokenizer: Tokenizer, stats: CoreStats) -> list[News]:
        """Take in updates; what they show, the end included when they are the last."""
        news: list[News] = []
        for update in updates:
            self.take(update, tokenizer)
            if update.tokens and not self._selects:
                news.append(self._delta(update))
        if self.done:
            news += self._late_deltas()
            news.append(self.end_event(stats))
        return news

    def event(self, news: News) -> StreamEvent:
        """News as an event of the protocol."""
        if not isinstance(news, Delta):
            return news
        return self._event(
            "delta",
            index=news.index,
            chunk=news.chunk,
            chunk_tokens=news.chunk_tokens,
            logprobs=news.logprobs,
            finish_reason=news.finish_reason,
            prompt_logprobs=news.prompt_logprobs,
        )

    def _delta(self, update: Update) -> Delta:
        """What the update that was just taken in shows."""
        tokens = update.tokens
        delta = Delta(update.index, update.text, [token.token_id for token in tokens])
        if self.several:
            delta.finish_reason = update.finish_reason
        if self._wants_logprobs:
            delta.logprobs = self._answers[update.index].logprobs[-len(tokens) :]
        if self._prompt_logprobs is not None and len(self._answers[update.index].tokens) == len(tokens):
            delta.prompt_logprobs = self._prompt_logprobs
        return delta

    def _late_deltas(self) -> Iterator[Delta]:
        """The deltas that had to wait for the end, one for each answer that is given."""
        for choice in self._choices() if self._selects else ():
            yield Delta(
                choice.index,
                choice.output_text,
                choice.output_tokens,
                choice.logprobs,
                choice.finish_reason,
                self._prompt_logprobs,
            )

    def end_event(self, stats: CoreStats) -> StreamEvent:
        """The last event, when all answers have ended: the best of them, and what was measured."""
        best = self._ranked()[0]
        several = self.several or self.params.strategy is DecodingStrategy.BEAM_SEARCH
        return self._event(
            "end",
            prompt_tokens=len(self.prompt),
            output_text="".join(best.text),
            output_tokens=best.tokens,
            finish_reason=best.finish_reason,
            metrics=self._metrics(best, stats),
            logprobs=best.logprobs if self._wants_logprobs else None,
            prompt_logprobs=self._prompt_logprobs,
            choices=list(self._choices()) if several else [],
            error=None if best.finish_reason in ("stop", "length") else best.error,
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
            logprobs=end.logprobs,
            prompt_logprobs=end.prompt_logprobs,
            choices=end.choices,
            error=end.error,
        )

    def _ranked(self) -> list[_Answer]:
        """The answers that are given, best first; those of a search come ranked."""
        if not self._selects:
            return self._answers
        return sorted(self._answers, key=lambda answer: -answer.mean_logprob)[: self.params.n]

    def _choices(self) -> Iterator[Choice]:
        for index, answer in enumerate(self._ranked()):
            yield Choice(
                index=index,
                output_text="".join(answer.text),
                output_tokens=answer.tokens,
                finish_reason=answer.finish_reason or "error",
                logprobs=answer.logprobs if self._wants_logprobs else None,
                score=answer.mean_logprob if self._selects and answer.mean_logprob > float("-inf") else answer.score,
            )

    def _metrics(self, answer: _Answer, stats: CoreStats) -> Metrics:
        """Measurements of this request; times between tokens are those of one answer."""
        assert self._last is not None
        times, ended = answer.times, self._last.at
        first = min((each.times[0] for each in self._answers if each.times), default=ended)
        gaps = [1000 * (after - before) for before, after in pairwise(times)]
        between = sum(gaps) / len(gaps) if gaps else 0.0
        begun = self._begun or self.queued_at
        tokens = sum(len(each.tokens) for each in self._answers)
        proposed, accepted = (sum(each[part] for each in self._drafts.values()) for part in (0, 1))
        used = len(self.prompt) + tokens
        moved_blocks, moved_bytes, moved_ms = self._last.kv_transfer
        reduces, gathers, waited_s = (now - then for now, then in zip(stats.comm, self.comm_before, strict=True))
        return Metrics(
            ttft_ms=1000 * (first - self.queued_at) if times else 0.0,
            tbt_ms=between,
            tpot_ms=between,
            throughput_tps=tokens / max(ended - self.queued_at, 1e-9),
            error_rate=float(answer.finish_reason == "error"),
            kv_used_tokens=used,
            kv_used_bytes=used * stats.bytes_per_token,
            prefix_hit_rate=self._cached_tokens / len(self.prompt),
            spec_accept_rate=accepted / proposed if proposed else 0.0,
            prefill_ms=1000 * max(first - begun, 0.0),
            decode_ms=1000 * (times[-1] - first) if times else 0.0,
            kv_transfer_count=moved_blocks,
            kv_transfer_bytes=moved_bytes,
            kv_transfer_ms=moved_ms,
            comm_overhead_ms=1000 * waited_s,
            allreduce_count=int(reduces),
            allgather_count=int(gathers),
            itl_list=gaps,
            timestamps=Timestamps(queued_at=self.queued_at, scheduled_at=begun, executed_at=first, completed_at=ended),
        )

    def _event(self, event: str, **fields: object) -> StreamEvent:
        return StreamEvent.model_validate(
            {
                "event": event,
                "request_id": self.request.request_id,
                "trace_id": self.request.trace_id,
                "engine_id": self._engine_id,
                **fields,
            }
        )


def core_params(params: SamplingParams) -> SamplingParams:
    """What the engine core needs to know: where the best are given, log-probabilities rank them."""
    if num_answers(params) > params.n and params.logprobs is None:
        return params.model_copy(update={"logprobs": 0})
    return params


def _logprob(token: SampledToken, tokenizer: Tokenizer) -> TokenLogprob:
    top = token.top or {}
    return TokenLogprob(
        token_id=token.token_id,
        token=tokenizer.token(token.token_id),
        logprob=token.logprob if token.logprob is not None else 0.0,
        top=top,
        top_tokens={token_id: tokenizer.token(token_id) for token_id in top},
    )
