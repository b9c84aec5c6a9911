"""Beam search, the worker's part: the likeliest continuations of every beam.

Which beams live on is decided over all beams of a request, by the scheduler's side (`engine_core`).
"""

from __future__ import annotations

from sagellm_core.decoding.adjust import adjust
from sagellm_core.decoding.base import BROKEN, BaseDecodingStrategy, LogitBatch, Outcome
from sagellm_core.engine_core.plan import Candidates
from sagellm_protocol.sampling import SamplingParams


class BeamSearchStrategy(BaseDecodingStrategy):
    """Log-probabilities, then penalties and bans on them (as transformers does it), then the best of each row."""

    def __call__(self, batch: LogitBatch) -> list[Outcome]:
        logprobs = batch.logits.float().log_softmax(-1)
        if batch.adjusted:
            adjust(logprobs, batch.rows())
        widths = [_width(span.state.params, len(span.state.stop_ids)) for span in batch.spans]
        values, ids = logprobs.topk(min(max(widths), logprobs.shape[-1]))
        unusable = batch.unusable().tolist()
        rows = zip(ids.tolist(), values.tolist(), widths, unusable, strict=True)
        return [BROKEN if broken else likeliest(ids, values, width) for ids, values, width, broken in rows]


def likeliest(ids: list[int], logprobs: list[float], width: int, similarity: float = 0.0) -> Candidates:
    """The first `width` of tokens that are sorted by log-probability; what is banned is no candidate."""
    allowed = sum(1 for logprob in logprobs[:width] if logprob > float("-inf"))
    return Candidates(ids[:allowed], logprobs[:allowed], similarity)


def _width(params: SamplingParams, stops: int) -> int:
    """So many that num_beams of all beams' candidates go on even when every beam's best ones end it."""
    return params.num_beams + max(params.num_beams, stops)
