"""The paged cache's bookkeeping: sharing, naming, eviction, and that no block leaks or is freed twice."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sagellm_core.engine_core.block_manager import BlockManager, chain_digest, extend_chain

SIZE = 4


def chain_of(tokens: list[int]) -> list[bytes]:
    chain: list[bytes] = []
    extend_chain(chain, tokens, SIZE)
    return chain


def test_a_chain_names_full_blocks_only_and_grows_where_it_ended() -> None:
    tokens = list(range(11))
    assert len(chain_of(tokens)) == 2
    chain = chain_of(tokens[:6])
    extend_chain(chain, tokens, SIZE)
    assert chain == chain_of(tokens)


def test_a_block_is_named_by_everything_before_it() -> None:
    assert chain_of([1, 2, 3, 4, 9, 9, 9, 9])[1] != chain_of([4, 3, 2, 1, 9, 9, 9, 9])[1]
    assert chain_digest(b"", [1, 23]) != chain_digest(b"", [12, 3])


def test_taking_more_than_there_is_takes_nothing() -> None:
    blocks = BlockManager(3, SIZE)
    assert blocks.take(4) is None
    assert blocks.num_free == 3


def test_a_named_block_is_found_again_after_its_owner_has_gone() -> None:
    blocks = BlockManager(4, SIZE)
    chain = chain_of(list(range(8)))
    table = blocks.take(2) or []
    for block, digest in zip(table, chain, strict=True):
        blocks.name(block, digest)
    blocks.release(table)
    assert blocks.num_free == 4
    assert blocks.cached_prefix(chain) == table
    assert blocks.idle(table) == 2
    blocks.share(table)
    assert blocks.num_free == 2


def test_eviction_takes_the_least_recently_freed_and_ends_before_beginnings() -> None:
    blocks = BlockManager(4, SIZE)
    old, new = chain_of(list(range(8))), chain_of(list(range(50, 58)))
    tables = []
    for chain in (old, new):
        table = blocks.take(2) or []
        for block, digest in zip(table, chain, strict=True):
            blocks.name(block, digest)
        tables.append(table)
    for table in tables:
        blocks.release(table)
    assert blocks.take(1) == [tables[0][1]]
    assert blocks.cached_prefix(old) == tables[0][:1]
    assert blocks.cached_prefix(new) == tables[1]
    assert blocks.evictions == 1


def test_unnamed_blocks_are_reused_before_cached_ones() -> None:
    blocks = BlockManager(2, SIZE)
    table = blocks.take(2) or []
    blocks.name(table[0], chain_of([1, 2, 3, 4])[0])
    blocks.release(table)
    assert blocks.take(1) == [table[1]]
    assert blocks.evictions == 0


def test_without_a_prefix_cache_nothing_is_found() -> None:
    blocks = BlockManager(2, SIZE, prefix_cache=False)
    chain = chain_of([1, 2, 3, 4])
    table = blocks.take(1) or []
    blocks.name(table[0], chain[0])
    assert blocks.cached_prefix(chain) == []


def test_freeing_twice_is_an_error() -> None:
    blocks = BlockManager(2, SIZE)
    table = blocks.take(1) or []
    blocks.release(table)
    with pytest.raises(ValueError, match="freed twice"):
        blocks.release(table)


def test_only_what_nobody_else_reads_may_be_written() -> None:
    blocks = BlockManager(2, SIZE)
    table = blocks.take(1) or []
    assert blocks.writable(table[0])
    blocks.share(table)
    assert not blocks.writable(table[0])
    blocks.release(table)
    assert blocks.writable(table[0])
    blocks.name(table[0], chain_of([1, 2, 3, 4])[0])
    assert not blocks.writable(table[0])


def test_contents_that_are_lost_are_not_found() -> None:
    blocks = BlockManager(3, SIZE)
    chain = chain_of(list(range(8)))
    table = blocks.take(2) or []
    for block, digest in zip(table, chain, strict=True):
        blocks.name(block, digest)
    blocks.release(table[:1])
    blocks.forget_all()
    assert blocks.cached_prefix(chain) == []
    blocks.release(table[1:])
    assert blocks.num_free == 3
    assert blocks.take(3) is not None
    assert blocks.evictions == 0


def test_a_chain_of_another_root_has_other_names() -> None:
    chains: list[list[bytes]] = [[], []]
    for chain, root in zip(chains, (b"", b"adapter"), strict=True):
        extend_chain(chain, list(range(8)), SIZE, root)
    assert not set(chains[0]) & set(chains[1])


class BlockMachine(RuleBasedStateMachine):
    """Random owners take, share, name and release; a plain model counts who owns what."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(8, SIZE)
        self.tables: list[tuple[list[int], list[bytes]]] = []

    @rule(word=st.lists(st.integers(0, 1), min_size=1, max_size=6))
    def enter(self, word: list[int]) -> None:
        """A sequence of whole blocks of content: takes what is cached, and new blocks for the rest."""
        chain = chain_of([letter for letter in word for _ in range(SIZE)])
        shared = self.blocks.cached_prefix(chain)
        missing = len(chain) - len(shared)
        if missing + self.blocks.idle(shared) > self.blocks.num_free:
            return
        self.blocks.share(shared)
        fresh = self.blocks.take(missing)
        assert fresh is not None
        for block, digest in zip(fresh, chain[len(shared) :], strict=True):
            self.blocks.name(block, digest)
        self.tables.append((shared + fresh, chain))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        table, _ = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.blocks.release(table)

    @invariant()
    def every_owner_is_counted(self) -> None:
        owned = [block for table, _ in self.tables for block in table]
        for block in range(self.blocks.num_blocks):
            assert self.blocks.owners(block) == owned.count(block)
        assert self.blocks.num_free == self.blocks.num_blocks - len(set(owned))

    @invariant()
    def a_held_prefix_can_be_found(self) -> None:
        for table, chain in self.tables:
            assert len(self.blocks.cached_prefix(chain)) == len(table)


TestBlockMachine = BlockMachine.TestCase
TestBlockMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
