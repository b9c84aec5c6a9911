"""The names of a prompt's blocks, the same on every node."""

from __future__ import annotations

from hashlib import blake2b

from sagellm_core.engine_core.block_manager import chain_digest


def prefix_chain(tokens: list[int], block_size: int, adapter: str = "") -> list[bytes]:
    """Digests of the full blocks of `tokens`, as the scheduler names them."""
    digest = blake2b(adapter.encode(), digest_size=16).digest() if adapter else b""
    chain: list[bytes] = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        digest = chain_digest(digest, tokens[start : start + block_size])
        chain.append(digest)
    return chain
