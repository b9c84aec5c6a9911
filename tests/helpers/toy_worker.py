"""A worker without a model, which checks every step that it gets: what a sequence reads in the cache must be its own.

The toy model's next token, its candidates and its similarity are functions of the tokens before, so that what a request
must get can be told without scheduler, cache and steps (`expected`).
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from hashlib import blake2b
from math import exp, log

from sagellm_core.engine_core.plan import Candidates, SampledToken, SchedulerOutput, StepOutput
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

VOCAB = 5
SEARCHES = (DecodingStrategy.BEAM_SEARCH, DecodingStrategy.CONTRASTIVE)


def _draw(tokens: Seq[int], *more: object) -> float:
    """A number in [0, 1) that depends on all tokens."""
    digest = blake2b(repr((list(tokens), more)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def next_token(tokens: Seq[int], index: int) -> int:
    """The token after these in the answer with this number. Looks at few, so that texts repeat themselves."""
    return int(_draw(tokens[-2:], index) * VOCAB)


def logprobs(tokens: Seq[int]) -> list[float]:
    """Log-probabilities of all next tokens."""
    weights = [exp(3 * _draw(tokens, token)) for token in range(VOCAB)]
    return [log(weight / sum(weights)) for weight in weights]


def similarity(tokens: Seq[int]) -> float:
    return _draw(tokens, "similarity")


def candidates(tokens: Seq[int], sampling: SamplingParams) -> Candidates:
    """What a worker offers to a search after these tokens."""
    scores = logprobs(tokens)
    beams = sampling.strategy is DecodingStrategy.BEAM_SEARCH
    best = sorted(range(VOCAB), key=lambda token: -scores[token])[: 2 * sampling.num_beams if beams else sampling.top_k]
    return Candidates(best, [scores[token] for token in best], similarity(tokens))


class ToyWorker:
    """Carries out plans on a cache whose slots hold the text up to the token that was computed there."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.size = block_size
        self.cache: list[tuple[int, ...] | None] = [None] * (num_blocks * block_size)
        self.tokens: dict[str, list[int]] = {}
        self.sampling: dict[str, SamplingParams] = {}
        self.index: dict[str, int] = {}
        self.pooling: set[str] = set()
        self.prompts: dict[str, list[int]] = {}
        self.scored: dict[str, int] = {}
        self.most_tokens = 0

    def forget(self) -> None:
        """A new worker in the place of this one."""
        self.__init__(len(self.cache) // self.size, self.size)  # type: ignore[misc]

    def execute(self, plan: SchedulerOutput, *, draft: bool = False) -> StepOutput:
        """A step; with `draft`, it also proposes drafts (right ones and wrong ones) where there is room."""
        self._begin(plan)
        output = StepOutput(plan.step, {})
        written: set[int] = set()
        first = 0
        for row in range(len(plan.seq_ids)):
            count, end = plan.query_lens[row], plan.context_lens[row]
            last = first + count
            assert plan.positions[first:last] == list(range(end - count, end))
            text, table = self._text(plan, row, plan.token_ids[first:last]), plan.block_tables[row]
            for position, slot in zip(range(end - count, end), plan.slot_mapping[first:last], strict=True):
                assert slot == self._slot(table, position)
                assert slot not in written, "two sequences write the same slot"
                written.add(slot)
                self.cache[slot] = tuple(text[: position + 1])
            first = last
        self.most_tokens = max(self.most_tokens, first)
        for row, seq_id in enumerate(plan.seq_ids):
            self._check(plan, row)
            if plan.samples[row]:
                self._answer(seq_id, plan.drafts.get(seq_id, []), output)
                self._propose(seq_id, plan, row, output if draft else None)
        self._score(plan, output)
        return output

    def _begin(self, plan: SchedulerOutput) -> None:
        for source, target in plan.copies:
            self.cache[target * self.size : (target + 1) * self.size] = self.cache[
                source * self.size : (source + 1) * self.size
            ]
        for fork in plan.forks:
            self.tokens[fork.child] = list(self.tokens[fork.parent])
            self.sampling[fork.child] = self.sampling[fork.parent]
            self.index[fork.child] = self.index[fork.parent]
        for seq_id in plan.finished:
            self.tokens.pop(seq_id, None)
        for new in plan.new:
            self.tokens[new.seq_id] = new.prompt + new.output
            self.sampling[new.seq_id] = new.sampling
            self.index[new.seq_id] = new.index
            self.prompts[new.seq_id] = new.prompt
            self.scored[new.seq_id] = len(new.prompt) if new.output else 0
            if new.pooling:
                self.pooling.add(new.seq_id)

    def _text(self, plan: SchedulerOutput, row: int, piece: list[int]) -> list[int]:
        """The text of a sequence up to the end of this step's piece, drafts included. Takes in what is new of it."""
        seq_id, end = plan.seq_ids[row], plan.context_lens[row]
        tokens, drafts = self.tokens[seq_id], plan.drafts.get(seq_id, [])
        start, sure = end - len(piece), len(piece) - len(drafts)
        assert len(tokens) >= start, "a gap before the piece"
        assert tokens[start : start + sure] == piece[: max(len(tokens) - start, 0)][:sure], "another text than before"
        tokens[start : start + sure] = piece[:sure]
        assert not plan.samples[row] or len(tokens) == end - len(drafts)
        return tokens[: start + sure] + drafts

    def _slot(self, table: list[int], position: int) -> int:
        return table[position // self.size] * self.size + position % self.size

    def _check(self, plan: SchedulerOutput, row: int) -> None:
        """Every slot that the sequence reads holds its own text."""
        seq_id, table = plan.seq_ids[row], plan.block_tables[row]
        drafts = plan.drafts.get(seq_id, [])
        tokens = self.tokens[seq_id][: plan.context_lens[row] - len(drafts)] + drafts
        for position in range(plan.context_lens[row]):
            assert self.cache[self._slot(table, position)] == tuple(tokens[: position + 1])

    def _answer(self, seq_id: str, drafts: list[int], output: StepOutput) -> None:
        tokens, sampling = self.tokens[seq_id], self.sampling[seq_id]
        if seq_id in self.pooling:
            output.vectors[seq_id] = [float(len(tokens)), float(sum(tokens))]
        elif sampling.strategy in SEARCHES:
            output.candidates[seq_id] = candidates(tokens, sampling)
        else:
            given = [next_token(tokens, self.index[seq_id])]
            for draft in drafts:
                if draft != given[-1]:
                    break
                given.append(next_token([*tokens, *given], self.index[seq_id]))
            tokens += given
            output.tokens[seq_id] = [SampledToken(token, -0.5) for token in given]

    def _propose(self, seq_id: str, plan: SchedulerOutput, row: int, output: StepOutput | None) -> None:
        if output is None or not plan.num_drafts or seq_id not in output.tokens:
            return
        text = list(self.tokens[seq_id])
        room = len(plan.block_tables[row]) * self.size - len(text)
        drafts: list[int] = []
        for number in range(min(room, plan.num_drafts)):
            right = next_token(text, self.index[seq_id])
            text.append(right if _draw(text, number) < 0.7 else (right + 1) % VOCAB)
            drafts.append(text[-1])
        output.drafts[seq_id] = drafts

    def _score(self, plan: SchedulerOutput, output: StepOutput) -> None:
        """Log-probabilities of prompt tokens, each given once."""
        for row, seq_id in enumerate(plan.seq_ids):
            sampling, end = self.sampling[seq_id], plan.context_lens[row]
            if sampling.prompt_logprobs is None:
                continue
            prompt = self.prompts[seq_id]
            needed = min(self.scored[seq_id], len(prompt) - 1)
            assert min(end - plan.query_lens[row], len(prompt) - 1) <= needed, "rows that were needed were skipped"
            output.prompt_logprobs[seq_id] = [
                SampledToken(prompt[at + 1], logprobs(prompt[: at + 1])[prompt[at + 1]])
                for at in range(self.scored[seq_id], min(end, len(prompt) - 1))
            ]
            self.scored[seq_id] = max(self.scored[seq_id], end)


def expected(
    prompt: list[int], sampling: SamplingParams, max_total: int, stop_ids: frozenset[int]
) -> list[tuple[list[int], float]]:
    """Tokens and score of every answer that a request must get."""
    if sampling.strategy is DecodingStrategy.BEAM_SEARCH:
        return _beams(prompt, sampling, max_total - len(prompt), stop_ids)
    if sampling.strategy is DecodingStrategy.CONTRASTIVE:
        return [(_contrastive(prompt, sampling, max_total - len(prompt), stop_ids), 0.0)]
    return [(_plain(prompt, index, max_total, stop_ids), 0.0) for index in range(sampling.best_of or sampling.n)]


def _plain(prompt: list[int], index: int, max_total: int, stop_ids: frozenset[int]) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < max_total:
        tokens.append(next_token(tokens, index))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]


def _beams(
    prompt: list[int], sampling: SamplingParams, length: int, stop_ids: frozenset[int]
) -> list[tuple[list[int], float]]:
    """Beam search written down from its definition: whole hypotheses, all continuations, sorted."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    width, penalty = sampling.num_beams, sampling.length_penalty
    for step in range(1, length + 1):
        grown = [
            (total + logprob, [*output, token])
            for total, output in live
            for token, logprob in enumerate(logprobs([*prompt, *output]))
        ]
        grown.sort(key=lambda item: -item[0])
        over = [item[1][-1] in stop_ids or step == length for item in grown]
        ended += [(item[0] / step**penalty, item[1]) for item, end in zip(grown[:width], over, strict=False) if end]
        ended = sorted(ended, key=lambda item: -item[0])[:width]
        live = [item for item, end in zip(grown, over, strict=True) if not end][:width]
        if not live:
            break
        if len(ended) == width and (sampling.early_stopping or live[0][0] / step**penalty <= ended[-1][0]):
            break
    return [(output, score) for score, output in ended[: sampling.n]]


def _contrastive(prompt: list[int], sampling: SamplingParams, length: int, stop_ids: frozenset[int]) -> list[int]:
    tokens = list(prompt)
    for _ in range(length):
        scores = logprobs(tokens)
        best = sorted(range(VOCAB), key=lambda token: -scores[token])[: sampling.top_k]
        alpha = sampling.penalty_alpha
        values = [(1 - alpha) * exp(scores[token]) - alpha * similarity([*tokens, token]) for token in best]
        tokens.append(best[values.index(max(values))])
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]
