"""A small model that proposes what the large one will say (Leviathan et al. 2023), in the same cache blocks.

It has caches of its own under the block tables of the plan, so that forks, prefixes and preemption need no second
bookkeeping. A block that the large model filled for one sequence and another reads may lack the small model's last keys
and values; that costs an accepted draft now and then, never a wrong token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sagellm_core.backends.base import Backend, attention_for
from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.adjust import Row, adjust
from sagellm_core.decoding.decoder import StepDecoder
from sagellm_core.decoding.speculative import SpeculativeStrategy
from sagellm_core.decoding.state import SequenceState
from sagellm_core.engine_core.plan import BatchType, SchedulerOutput, StepOutput
from sagellm_core.errors import ModelLoadError
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import read_model_config
from sagellm_core.models.load import load_model
from sagellm_core.models.locate import locate_model
from sagellm_core.models.weights import WeightReader
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_core.worker.blocks import BlockStore

_PROBE = "Compare 3.14 and π: naïve 你好 😀 <|x|>\n\tdef f(a_b): return a_b+1"


@dataclass(slots=True)
class _Follower:
    """One sequence: its tokens, and how many of them have keys and values in the draft model's caches."""

    tokens: list[int] = field(default_factory=list)
    known: int = 0


@dataclass(slots=True)
class _Work:
    """One sequence in a round: the tokens `first .. last-1` go through the model; it may propose `wanted` more."""

    seq_id: str
    state: SequenceState
    follower: _Follower
    table: list[int]
    first: int
    last: int
    wanted: int
    drafts: list[int] = field(default_factory=list)


class DraftModel:
    """Proposes tokens for the sequences that speculate, after every step."""

    def __init__(self, model: CausalLM, backend: Backend, num_blocks: int, block_size: int) -> None:
        config = model.config
        self.model = model
        self._device = backend.device
        self._block_size = block_size
        self._attention = attention_for(backend, config, block_size)
        shape = (2, num_blocks + backend.spare_blocks, block_size, model.num_kv_heads, config.head_dim)
        self.caches = [backend.new_cache(shape, model.dtype) for _ in range(model.num_layers)]
        self._blocks = BlockStore(self.caches)
        self._followers: dict[str, _Follower] = {}
        self._strategy = SpeculativeStrategy()

    def begin(self, plan: SchedulerOutput) -> None:
        """Carry out a plan's copies; forget who has finished."""
        if plan.copies:
            self._blocks.copy(plan.copies)
        for seq_id in plan.finished:
            self._followers.pop(seq_id, None)

    def propose(self, plan: SchedulerOutput, decoder: StepDecoder, output: StepOutput) -> dict[str, list[int]]:
        """Read what the step computed and chose, then propose up to `plan.num_drafts` tokens a sequence."""
        works = self._works(plan, decoder, output)
        if not works:
            return {}
        logits = self._feed(works)
        active = [(row, work) for row, work in enumerate(works) if work.wanted > 0]
        while active:
            rows = [row for row, _ in active]
            chosen = self._choose(logits if len(rows) == len(logits) else logits[rows], [work for _, work in active])
            for (_, work), token in zip(active, chosen, strict=True):
                work.drafts.append(token)
            further = [work for _, work in active if len(work.drafts) < work.wanted]
            for work in further:
                work.first, work.last = work.last, work.last + 1
            logits = self._feed(further) if further else logits
            active = list(enumerate(further))
        for work in works:
            work.follower.known = work.last
            work.follower.tokens += work.drafts
        return {work.seq_id: work.drafts for work in works if work.drafts}

    def _works(self, plan: SchedulerOutput, decoder: StepDecoder, output: StepOutput) -> list[_Work]:
        works: list[_Work] = []
        first = 0
        for index, seq_id in enumerate(plan.seq_ids):
            piece = plan.token_ids[first : first + plan.query_lens[index]]
            position = plan.positions[first]
            first += len(piece)
            state = decoder.states[seq_id]
            if not state.params.n_speculative_tokens or state.searches or state.pooled is not None:
                continue
            drafts = plan.drafts.get(seq_id, ())
            chosen = [token.token_id for token in output.tokens.get(seq_id, ())]
            follower = self._follow(seq_id, state, position, piece[: len(piece) - len(drafts)] + chosen)
            works += self._work(plan, index, state, follower, chosen)
        return works

    def _follow(self, seq_id: str, state: SequenceState, position: int, tokens: list[int]) -> _Follower:
        """Bring a sequence up to the step: its tokens from `position` on are these.

        What lies before `position` when a sequence is first seen was read from blocks that are filled already.
        """
        follower = self._followers.get(seq_id)
        if follower is None:
            unknown = [0] * (position - len(state.prompt))
            follower = self._followers[seq_id] = _Follower(state.prompt + unknown, position)
        agreed = position
        for old, new in zip(follower.tokens[position:], tokens, strict=False):
            if old != new:
                break
            agreed += 1
        follower.known = min(follower.known, agreed)
        follower.tokens[position:] = tokens
        return follower

    def _work(
        self, plan: SchedulerOutput, index: int, state: SequenceState, follower: _Follower, chosen: list[int]
    ) -> list[_Work]:
        """What this sequence has to do in this step, if its blocks have room for it."""
        table = plan.block_tables[index]
        room = min(len(table) * self._block_size, self.model.config.max_position)
        last = min(len(follower.tokens), room)
        ended = bool(chosen) and (chosen[-1] < 0 or chosen[-1] in state.stop_ids)
        if follower.known >= last or ended:
            return []
        wanted = min(plan.num_drafts, state.params.n_speculative_tokens, room - last + 1) if chosen else 0
        if last < len(follower.tokens):
            wanted = 0
        return [_Work(plan.seq_ids[index], state, follower, table, follower.known, last, wanted)]

    def _feed(self, works: list[_Work]) -> Tensor:
        """Run the model over the works' tokens; logits (works, vocabulary) of the last of each."""
        size = self._block_size
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for work in works:
            known = len(work.follower.tokens)
            for at in range(work.first, work.last):
                tokens.append(work.follower.tokens[at] if at < known else work.drafts[at - known])
                positions.append(at)
                slots.append(work.table[at // size] * size + at % size)
        counts = [work.last - work.first for work in works]
        step = SchedulerOutput(
            step=0,
            batch_type=BatchType.DECODE if len(tokens) == len(works) else BatchType.MIXED,
            seq_ids=[work.seq_id for work in works],
            token_ids=tokens,
            positions=positions,
            slot_mapping=slots,
            query_lens=counts,
            context_lens=[work.last for work in works],
            block_tables=[work.table for work in works],
            samples=[True] * len(works),
        )
        device = self._device
        inputs = torch.tensor(tokens, device=device).clamp_(max=self.model.config.vocab_size - 1)
        meta = self._attention.prepare(step, self.model.dtype)
        places = torch.tensor(positions, device=device)
        hidden = self.model.forward(inputs, places, self.caches, self._attention, meta)
        if len(tokens) > len(works):
            hidden = hidden[torch.tensor(counts, device=device).cumsum(0) - 1]
        return self.model.logits(hidden)

    def _choose(self, logits: Tensor, works: list[_Work]) -> list[int]:
        """The tokens that these rows' sequences would choose if this were the large model."""
        rows = [Row(work.state, work.drafts) for work in works]
        scores = logits.to(torch.float32, copy=True)
        if any(work.state.adjusted for work in works):
            adjust(scores, rows)
        chosen: list[int] = self._strategy.choose(scores, rows).tolist()
        return chosen


def load_draft(config: LLMEngineConfig, folder: Path, backend: Backend, max_model_len: int) -> CausalLM | None:
    """The draft model that a configuration names for the model in `folder`; None when it names none.

    Raises ModelLoadError when it cannot be read, or names other tokens than the model.
    """
    if config.speculative_model is None:
        return None
    own = locate_model(config.speculative_model)
    check_tokenizers(folder, own)
    shape = read_model_config(own)
    with WeightReader(own) as reader:
        dtype = backend.dtype(config.dtype, shape)
        return load_model(shape, reader, dtype, backend, min(max_model_len, shape.max_position))


def check_tokenizers(folder: Path, draft: Path) -> None:
    """Raise ModelLoadError unless both models name the same tokens: drafts pass between them as token ids."""
    ours, theirs = Tokenizer(folder), Tokenizer(draft)
    if ours.vocab_size != theirs.vocab_size or ours.encode(_PROBE) != theirs.encode(_PROBE):
        raise ModelLoadError(
            f"The draft model in {draft} has another tokenizer than the model in {folder}",
            hint="Draft models come from the same family, e.g. Qwen2.5-0.5B for Qwen2.5-7B",
        )
