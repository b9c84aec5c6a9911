"""The cache as sequences see it: what they find there, room for what they compute, copies of what others read too."""

from __future__ import annotations

from sagellm_core.engine_core.block_manager import BlockManager, extend_chain
from sagellm_core.engine_core.sequence import Sequence


class CacheSpace:
    """Puts sequences' tokens into blocks. `copies` are the blocks that the next step has to copy, source and target."""

    def __init__(self, blocks: BlockManager) -> None:
        self.blocks = blocks
        self.copies: list[tuple[int, int]] = []

    def enter(self, sequence: Sequence, spare: int) -> bool:
        """Give a sequence the blocks that hold its beginning, if the rest fits too and `spare` blocks stay free."""
        blocks = self.blocks
        shared, known = self._reusable(sequence)
        needed = blocks.blocks_for(len(sequence.tokens)) - len(shared) + blocks.idle(shared)
        needed += known % blocks.block_size > 0
        if needed + spare > blocks.num_free:
            return False
        blocks.share(shared)
        sequence.blocks = shared
        sequence.num_computed = known
        return True

    def provide(self, sequence: Sequence, length: int) -> bool:
        """Blocks for `length` tokens, writable from the first new one on; False, and nothing, when too few are free."""
        blocks, table, size = self.blocks, sequence.blocks, self.blocks.block_size
        at = sequence.num_computed // size
        shares = sequence.group.num_members > 1 and sequence.num_computed % size > 0
        copied = shares and not blocks.writable(table[at])
        missing = -(-length // size) - len(table) + copied
        if missing <= 0:
            return True
        taken = blocks.take(missing)
        if taken is None:
            return False
        if copied:
            fresh = taken.pop()
            self.copies.append((table[at], fresh))
            blocks.release([table[at]])
            table[at] = fresh
        table.extend(taken)
        return True

    def look_ahead(self, sequence: Sequence, tokens: int) -> bool:
        """Room for so many tokens after those that are known, if it is free."""
        length = len(sequence.tokens) + tokens
        taken = self.blocks.take(max(self.blocks.blocks_for(length) - len(sequence.blocks), 0))
        sequence.blocks.extend(taken or ())
        return taken is not None

    def name_full(self, sequence: Sequence, first: int) -> None:
        """Make the blocks from number `first` on that are full and computed findable for other sequences."""
        size = self.blocks.block_size
        full = min(sequence.num_computed, len(sequence.tokens)) // size
        extend_chain(sequence.digests, sequence.tokens, size, sequence.root)
        for block, digest in zip(sequence.blocks[first:full], sequence.digests[first:full], strict=True):
            self.blocks.name(block, digest)

    def leave(self, sequence: Sequence) -> None:
        """Take all blocks away."""
        self.blocks.release(sequence.blocks)
        sequence.blocks = []
        sequence.drafts = []
        sequence.num_computed = 0

    def _reusable(self, sequence: Sequence) -> tuple[list[int], int]:
        """Blocks that hold the beginning of a waiting sequence already, and how many of its tokens.

        At least one token is left to compute: its row tells how to go on.
        """
        blocks, group = self.blocks, sequence.group
        most = len(sequence.tokens) - 1
        if not (sequence.reads_prefix or sequence.num_output):
            return [], 0
        if group.num_members > 1:
            member, common = group.nearest(sequence, most)
            if member is not None:
                return member.blocks[: blocks.blocks_for(common)], common
        if not sequence.reads_prefix:
            return [], 0
        extend_chain(sequence.digests, sequence.tokens, blocks.block_size, sequence.root)
        found = blocks.cached_prefix(sequence.digests[: most // blocks.block_size])
        return found, len(found) * blocks.block_size
