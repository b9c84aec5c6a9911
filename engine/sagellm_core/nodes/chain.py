"""The names of a prompt's blocks, the same on every node."""

from __future__ import annotations

from sagellm_core.engine_core.block_manager import chain_root, extend_chain


def prefix_chain(tokens: list[int], block_size: int, adapter: str = "") -> list[bytes]:
    """Digests of the full blocks of `tokens`, as the scheduler names them."""
    chain: list[bytes] = []
    extend_chain(chain, tokens, block_size, chain_root(adapter))
    return chain
