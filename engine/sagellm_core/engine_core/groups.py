"""The sequences of one request: several answers that share a prompt, or the members of a search.

Members are ordinary sequences to the scheduler. They find each other here, to share blocks instead of computing the
same tokens twice, and a search waits here until every member has its candidates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from sagellm_core.engine_core.beam import BeamSearch
from sagellm_core.engine_core.block_manager import chain_root
from sagellm_core.engine_core.contrastive import ContrastiveSearch
from sagellm_core.engine_core.drafts import Drafter
from sagellm_core.engine_core.plan import Candidates
from sagellm_core.engine_core.search import Search, Turn
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams


@dataclass(slots=True, eq=False)
class Group:
    """A request: `answers` is how many it gets, `members` are its sequences that have not ended, in order.

    `order` are its urgency and its arrival. `num_members` counts the members that ever were, so that every new one gets
    a name of its own. `num_cached` prompt tokens were found in the cache.
    """

    request_id: str
    order: tuple[int, int]
    answers: int = 1
    search: Search | None = None
    members: list[Sequence] = field(default_factory=list)
    candidates: dict[str, Candidates] = field(default_factory=dict)
    num_members: int = 0
    num_cached: int = 0

    @property
    def max_total(self) -> int:
        """The bound of prompt plus output."""
        return self.members[0].max_total

    @property
    def extent(self) -> tuple[int, int]:
        """Length of the prompt, and how many sequences have to fit at once."""
        return self.members[0].num_prompt, self.search.width if self.search is not None else 1

    def enlist(self, like: Sequence, tokens: list[int], taken: Container[str]) -> Sequence:
        """A new sequence with the terms of `like`, and with a name that is not `taken`."""
        while (name := f"{self.request_id}#{self.num_members}") in taken:
            self.num_members += 1
        number = self.num_members
        self.num_members += 1
        return Sequence(
            name,
            tokens,
            like.max_total,
            self,
            like.sampling,
            (*self.order, number),
            like.stop_ids,
            num_prompt=like.num_prompt,
            root=like.root,
            adapter=like.adapter,
            digests=list(like.digests),
        )

    def turn(self) -> Turn:
        """Let the search decide, when every member has its candidates."""
        assert self.search is not None
        offered = [self.candidates[member.seq_id] for member in self.members]
        self.candidates.clear()
        return self.search.advance(offered)

    def reads(self) -> bool:
        """Whether a member is reading, so that others should wait and then share what it has read."""
        return any(member.status is SequenceStatus.RUNNING and member.num_pending > 1 for member in self.members)

    def nearest(self, sequence: Sequence, most: int) -> tuple[Sequence | None, int]:
        """The running member whose cache holds the longest beginning of `sequence`, and how many tokens of it.

        At most `most` tokens count.
        """
        best: Sequence | None = None
        longest = 0
        for member in self.members:
            if member is not sequence and member.status is SequenceStatus.RUNNING and longest < most:
                common = common_prefix(member.tokens, sequence.tokens, min(member.num_computed, most))
                if common > longest:
                    best, longest = member, common
        return best, longest


def num_answers(sampling: SamplingParams) -> int:
    """How many answers are computed to the end."""
    beams = sampling.strategy is DecodingStrategy.BEAM_SEARCH
    return sampling.n if beams else sampling.best_of or sampling.n


def searches(sampling: SamplingParams) -> bool:
    """Whether a token is chosen over several sequences, not from its own row alone."""
    return sampling.strategy in (DecodingStrategy.BEAM_SEARCH, DecodingStrategy.CONTRASTIVE)


def reads_prefix(sampling: SamplingParams, pooling: str) -> bool:
    """Whether cached blocks may stand for the prompt: nothing is wanted of each of its tokens."""
    return not pooling and sampling.prompt_logprobs is None and sampling.strategy is not DecodingStrategy.CONTRASTIVE


def search_width(sampling: SamplingParams) -> int:
    """How many sequences have to fit at once."""
    if sampling.strategy is DecodingStrategy.BEAM_SEARCH:
        return sampling.num_beams
    return max(sampling.top_k, 1) if sampling.strategy is DecodingStrategy.CONTRASTIVE else 1


def new_search(sampling: SamplingParams, max_tokens: int, stop_ids: frozenset[int]) -> Search | None:
    """The search that these parameters ask for; None when every token is chosen from its own row alone."""
    width = search_width(sampling)
    if sampling.strategy is DecodingStrategy.BEAM_SEARCH:
        return BeamSearch(
            width,
            sampling.n,
            max_tokens,
            stop_ids,
            length_penalty=sampling.length_penalty,
            early_stopping=sampling.early_stopping,
        )
    if sampling.strategy is DecodingStrategy.CONTRASTIVE:
        return ContrastiveSearch(width, sampling.penalty_alpha, max_tokens, stop_ids)
    return None


def open_group(request_id: str, order: tuple[int, int], prompt: Seq[int], limit: int, sampling: SamplingParams,
               stop_ids: Iterable[int], *, adapter: str, pooling: str, output: Seq[int],
               draft_model: bool) -> Group:  # fmt: skip
    """A request with its first members: one for each answer, or one that a search begins with.

    Only the first reports log-probabilities of the prompt, and goes on after `output`. `limit` bounds prompt plus
    output.
    """
    stops = frozenset(stop_ids)
    search = new_search(sampling, limit - len(prompt), stops)
    several = num_answers(sampling)
    group = Group(request_id, order, several, search, num_members=1 if search else several)
    root = chain_root(adapter)
    drafts = 0 if pooling or search else sampling.n_speculative_tokens
    quiet = sampling.model_copy(update={"prompt_logprobs": None})
    for index in range(group.num_members):
        own = sampling if index == 0 else quiet
        group.members.append(
            Sequence(
                f"{request_id}#{index}" if index else request_id,
                [*prompt, *output] if index == 0 else list(prompt),
                limit,
                group,
                own,
                (*order, index),
                stops,
                num_prompt=len(prompt),
                index=index,
                root=root,
                adapter=adapter,
                pooling=pooling,
                reads_prefix=reads_prefix(own, pooling),
                drafter=Drafter(drafts, lookup=not draft_model) if drafts else None,
            )
        )
    return group


def common_prefix(left: Seq[int], right: Seq[int], most: int) -> int:
    """How many of the first `most` tokens are the same from the beginning on."""
    if left[:most] == right[:most]:
        return most
    return bisect_left(range(1, most + 1), True, key=lambda size: left[:size] != right[:size])
