"""What the kernels need to know of a step, as int32 tensors on the device, brought there in one copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, chain

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.attention import AttentionSpec
from sagellm_core.layers.cuda.kernels import DecodeCall, Partials

ALIGN = 16
"""Pieces of a copy begin at multiples of this many numbers, and block tables are padded to as many columns: the
compiler makes another kernel for each alignment of an argument."""
MOST_SPLITS = 16
_SPLIT_TOKENS = 64


@dataclass(slots=True)
class Pieces:
    """Sequences that bring several tokens: first row, new tokens, context with them, blocks; also on the host."""

    starts: Tensor
    counts: Tensor
    lengths: Tensor
    tables: Tensor
    host_starts: list[int]
    host_counts: list[int]
    host_lengths: list[int]
    _work: dict[int, Tensor] = field(default_factory=dict)
    _ends: Tensor | None = None

    @property
    def follow(self) -> bool:
        """Whether the rows of each begin where those of the one before end."""
        ends = [start + count for start, count in zip(self.host_starts, self.host_counts, strict=True)]
        return ends[:-1] == self.host_starts[1:]

    @property
    def rows(self) -> slice:
        """The rows of all, where they follow each other."""
        return slice(self.host_starts[0], self.host_starts[-1] + self.host_counts[-1])

    @property
    def ends(self) -> Tensor:
        """Rows of the sequences before each, and of all: (sequences + 1,) int32, counted from the first's first row."""
        if self._ends is None:
            sums = [0, *accumulate(self.host_counts)]
            self._ends = torch.tensor(sums, dtype=torch.int32).to(self.starts.device)
        return self._ends

    def work(self, tokens: int) -> Tensor:
        """Pieces of so many tokens (items, 2): sequence, first token; those with the longest context first."""
        if tokens not in self._work:
            items = [
                (length - count + first, index, first)
                for index, (count, length) in enumerate(zip(self.host_counts, self.host_lengths, strict=True))
                for first in range(0, count, tokens)
            ]
            items.sort(reverse=True)
            flat = [[index, first] for _, index, first in items]
            self._work[tokens] = torch.tensor(flat, dtype=torch.int32).to(self.starts.device)
        return self._work[tokens]


@dataclass(slots=True)
class StepMetadata:
    """`slots`: one a token. `decodes`: sequences that bring one token; `plain`: those are all there is, in order.

    `splits`: pieces that the context of a decode is cut into. Room for them is made once and used by every layer.
    """

    slots: Tensor
    decodes: DecodeCall | None
    pieces: Pieces | None
    plain: bool
    splits: int
    _rooms: dict[tuple[int, int], Partials] = field(default_factory=dict)
    _long_slots: Tensor | None = None

    def room(self, spec: AttentionSpec) -> Partials:
        """Where the splits of one layer leave their results."""
        assert self.decodes is not None
        key = (spec.num_heads, spec.head_dim)
        if key not in self._rooms:
            rows = self.decodes.lengths.shape[0]
            self._rooms[key] = Partials.room(rows, self.splits, spec, self.slots.device)
        return self._rooms[key]

    @property
    def long_slots(self) -> Tensor:
        """`slots` as torch's own indexing wants them."""
        if self._long_slots is None:
            self._long_slots = self.slots.long()
        return self._long_slots


def splits_for(programs: int, longest: int, processors: int) -> int:
    """Pieces that fill the device twice with `programs` times as many programs: a power of two, no piece too short."""
    wanted = min(-(-2 * processors // programs), -(-longest // _SPLIT_TOKENS), MOST_SPLITS)
    return 1 << (max(1, wanted) - 1).bit_length()


def upload(lists: list[list[int]], device: torch.device) -> list[Tensor]:
    """Lists as int32 tensors on the device, by one copy (from page-locked memory to a GPU)."""
    padded = [numbers + [0] * (-len(numbers) % ALIGN) for numbers in lists]
    host = torch.tensor(list(chain.from_iterable(padded)), dtype=torch.int32)
    if device.type == "cuda":
        host = host.pin_memory()
    packed = host.to(device, non_blocking=True)
    out = []
    first = 0
    for numbers, whole in zip(lists, padded, strict=True):
        out.append(packed[first : first + len(numbers)])
        first += len(whole)
    return out


def step_metadata(plan: SchedulerOutput, device: torch.device, kv_heads: int, processors: int) -> StepMetadata:
    """The metadata of a plan, copied to the device."""
    starts = [0, *accumulate(plan.query_lens)]
    decodes = [index for index, count in enumerate(plan.query_lens) if count == 1]
    pieces = [index for index, count in enumerate(plan.query_lens) if count > 1]
    rows = [starts[index] for index in decodes]
    width = -(-max(len(table) for table in plan.block_tables) // ALIGN) * ALIGN

    def blocks(members: list[int]) -> list[int]:
        return list(chain.from_iterable(_padded(plan.block_tables[index], width) for index in members))

    def of(values: list[int], members: list[int]) -> list[int]:
        return [values[index] for index in members]

    lists = [plan.slot_mapping, rows, of(plan.context_lens, decodes), of(plan.slot_mapping, rows), blocks(decodes)]
    begins, counts, lengths = of(starts, pieces), of(plan.query_lens, pieces), of(plan.context_lens, pieces)
    lists += [begins, counts, lengths, blocks(pieces)]
    slots, at, ends, new, tables, first_rows, piece_counts, piece_lengths, piece_tables = upload(lists, device)
    call = DecodeCall(at, ends, tables.view(-1, width), new) if decodes else None
    prompts = None
    if pieces:
        prompts = Pieces(first_rows, piece_counts, piece_lengths, piece_tables.view(-1, width), begins, counts, lengths)
    longest = max(of(plan.context_lens, decodes), default=1)
    splits = splits_for(max(1, len(decodes)) * kv_heads, longest, processors)
    return StepMetadata(slots, call, prompts, prompts is None, splits)


def _padded(table: list[int], width: int) -> list[int]:
    return table + [0] * (width - len(table))
