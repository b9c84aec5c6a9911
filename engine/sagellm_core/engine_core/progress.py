"""What a step gave to the requests."""

from __future__ import annotations

from dataclasses import dataclass

from sagellm_core.engine_core.groups import Group
from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.engine_core.sequence import Sequence
from sagellm_protocol.messages import FinishReason


@dataclass(slots=True)
class Progress:
    """What one answer of a request got in a step; `finish_reason` is set when these are its last tokens.

    `sequence` computed it (None: a search chose among several). `score` ranks the answers of a search. `vector` is what
    a pooling request gets instead of tokens; `prompt_logprobs` come with the first token.
    """

    group: Group
    index: int
    tokens: list[SampledToken]
    finish_reason: FinishReason | None = None
    sequence: Sequence | None = None
    score: float = 0.0
    vector: list[float] | None = None
    prompt_logprobs: list[SampledToken] | None = None


def accept(sequence: Sequence, tokens: list[SampledToken]) -> Progress:
    """Append a sequence's new tokens up to the one that ends it (stop token, length, or no usable number)."""
    known, stops, limit = sequence.tokens, sequence.stop_ids, sequence.max_total
    news = Progress(sequence.group, sequence.index, tokens, None, sequence)
    for place, token in enumerate(tokens, 1):
        token_id = token.token_id
        if token_id < 0:
            news.tokens, news.finish_reason = tokens[: place - 1], "error"
            break
        known.append(token_id)
        if token_id in stops or len(known) >= limit:
            news.tokens, news.finish_reason = tokens[:place], "stop" if token_id in stops else "length"
            break
    if sequence.prompt_logprobs and len(known) - len(news.tokens) == sequence.num_prompt:
        news.prompt_logprobs = sequence.prompt_logprobs
    return news
