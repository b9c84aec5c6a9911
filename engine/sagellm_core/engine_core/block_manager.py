"""The paged KV cache's bookkeeping: which block belongs to whom, and which content it already holds.

A block is `block_size` token slots. A sequence owns a list of blocks (its block table); a full block whose content is
known may be shared by many sequences (reference counts) and stays findable after its last owner has gone, until its
space is needed (least recently freed first). Content is named by a hash chain, `digest(parent digest, token ids)`, so
equal digests mean equal prefixes (Kwon et al. 2023, "PagedAttention"; the chain is vLLM's automatic prefix caching).

This file does not know tensors, requests or time.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence as Seq
from hashlib import blake2b


def chain_digest(parent: bytes, tokens: Seq[int]) -> bytes:
    """Name of a full block: 16 bytes over the parent's name and the block's token ids; the same in every process."""
    return blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


def chain_root(adapter: str) -> bytes:
    """What stands before the first block of a chain: with a LoRA adapter, equal tokens have other keys and values."""
    return blake2b(adapter.encode(), digest_size=16).digest() if adapter else b""


def extend_chain(chain: list[bytes], tokens: Seq[int], block_size: int, root: bytes = b"") -> None:
    """Append the digests of the full blocks of `tokens` that `chain` does not have yet.

    `root` stands before the first block: what was computed under another root is never found.
    """
    for start in range(len(chain) * block_size, len(tokens) - block_size + 1, block_size):
        chain.append(chain_digest(chain[-1] if chain else root, tokens[start : start + block_size]))


class BlockManager:
    """Blocks `0 .. num_blocks-1` of one KV cache.

    Invariants (held by the property tests): a block is either free or has at least one owner, never both; the sum of
    owners over blocks equals the length of all block tables; a digest names at most one block.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError("a KV cache needs at least one block of at least one slot")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self.evictions = 0
        self._owners = [0] * num_blocks
        self._digests: list[bytes | None] = [None] * num_blocks
        self._by_digest: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of blocks that have an owner, 0 to 1."""
        return 1 - len(self._free) / self.num_blocks

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def cached_prefix(self, chain: Seq[bytes]) -> list[int]:
        """The longest run of blocks that already hold the content which `chain` names. Takes nothing."""
        found: list[int] = []
        for digest in chain if self.prefix_cache else ():
            block = self._by_digest.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def idle(self, blocks: Seq[int]) -> int:
        """How many of these blocks are counted in `num_free`: taking them costs that much free space."""
        return sum(1 for block in blocks if not self._owners[block])

    def share(self, blocks: Seq[int]) -> None:
        """Add an owner to each of these blocks, which `cached_prefix` returned or which another sequence owns."""
        for block in blocks:
            if not self._owners[block]:
                del self._free[block]
            self._owners[block] += 1

    def take(self, count: int) -> list[int] | None:
        """`count` blocks with undefined content and one owner each; None, and nothing taken, when too few are free."""
        if count > len(self._free):
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._forget(block)
            self._owners[block] = 1
        return taken

    def name(self, block: int, digest: bytes) -> None:
        """Make a full, computed block findable. The first block of equal content keeps the name."""
        if self.prefix_cache and self._digests[block] is None and digest not in self._by_digest:
            self._digests[block] = digest
            self._by_digest[digest] = block

    def release(self, blocks: Seq[int]) -> None:
        """Drop one owner of each block. Later blocks become evictable before earlier ones: a prefix outlives its end.

        Raises ValueError for a block that nobody owns.
        """
        for block in reversed(blocks):
            if self._owners[block] < 1:
                raise ValueError(f"block {block} is freed twice")
            self._owners[block] -= 1
            if not self._owners[block]:
                self._free[block] = None
                if self._digests[block] is None:
                    self._free.move_to_end(block, last=False)

    def owners(self, block: int) -> int:
        return self._owners[block]

    def writable(self, block: int) -> bool:
        """Whether its one owner may write into it; a block that others read has to be copied first."""
        return self._owners[block] == 1 and self._digests[block] is None

    def forget_all(self) -> None:
        """Every content is lost: no block can be found by its content any more."""
        for digest, block in self._by_digest.items():
            assert self._digests[block] == digest
            self._digests[block] = None
        self._by_digest.clear()

    def _forget(self, block: int) -> None:
        digest = self._digests[block]
        if digest is not None:
            del self._by_digest[digest]
            self._digests[block] = None
            self.evictions += 1
