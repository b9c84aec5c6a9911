"""Which of several engines that serve the same model takes a request."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TypeVar

import msgspec

from sage.llm.control_plane.classifier import BYTES_PER_TOKEN, InferenceCall
from sage.llm.control_plane.upstream import Upstream

BLOCK_BYTES = 512
MAX_BLOCKS = 32
REMEMBERED_BLOCKS = 16_384
REMEMBERED_SESSIONS = 16_384
_Key = TypeVar("_Key", bound=Hashable)

OVERLOAD = 2.0
SLACK_TOKENS = 4096
"""A session leaves its engine when that has more than OVERLOAD times the work of the least loaded candidate, and
SLACK_TOKENS beyond it."""


class ReplicaChooser:
    """The power of two choices on outstanding tokens (Mitzenmacher, 2001), with affinity.

    Two engines drawn at random are candidates, and beside them the one that has lately seen the longest prefix of the
    prompt. The one with the least outstanding tokens wins, where tokens of a prefix it has seen count as work already
    done; of equals the one that was named first. A session stays with its engine while that is not overloaded.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._blocks: OrderedDict[int, str] = OrderedDict()
        self._sessions: OrderedDict[str, str] = OrderedDict()

    def choose(self, call: InferenceCall, engines: Sequence[Upstream]) -> Upstream:
        """Return one of `engines`, of which there is at least one."""
        if len(engines) == 1:
            return engines[0]
        blocks = prefix_blocks(call.model, call.prompt)
        seen, keeper = self._longest(blocks, engines)
        chosen = self._of_session(call.session, engines)
        if chosen is None:
            candidates = self._rng.sample(engines, 2)
            if keeper is not None and keeper not in candidates:
                candidates.append(keeper)
            candidates.sort(key=engines.index)
            saved = seen * BLOCK_BYTES // BYTES_PER_TOKEN
            chosen = min(candidates, key=lambda one: one.queue.outstanding_tokens - (saved if one is keeper else 0))
        self._note(call.session, blocks, chosen.name)
        return chosen

    def _longest(self, blocks: list[int], engines: Sequence[Upstream]) -> tuple[int, Upstream | None]:
        """Return how many leading blocks some engine has seen, and which engine saw the last of them lately."""
        by_name = {engine.name: engine for engine in engines}
        for number in range(len(blocks), 0, -1):
            engine = by_name.get(self._blocks.get(blocks[number - 1], ""))
            if engine is not None:
                return number, engine
        return 0, None

    def _of_session(self, session: str, engines: Sequence[Upstream]) -> Upstream | None:
        """Return the engine of a session, None where there is none or it has too much to do."""
        name = self._sessions.get(session) if session else None
        engine = next((one for one in engines if one.name == name), None)
        if engine is None:
            return None
        least = min(one.queue.outstanding_tokens for one in engines)
        return engine if engine.queue.outstanding_tokens <= OVERLOAD * least + SLACK_TOKENS else None

    def _note(self, session: str, blocks: list[int], name: str) -> None:
        """Remember where a session and its prompt went; the longest unused are forgotten."""
        for block in blocks:
            _remember(self._blocks, block, name, REMEMBERED_BLOCKS)
        if session:
            _remember(self._sessions, session, name, REMEMBERED_SESSIONS)


def _remember(table: OrderedDict[_Key, str], key: _Key, value: str, limit: int) -> None:
    """Put an entry at the young end of a table of at most `limit` entries."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)


def prefix_blocks(model: str, prompt: msgspec.Raw) -> list[int]:
    """Return a hash for each whole leading block of a prompt's JSON, each over all that comes before it too.

    Two requests that share n hashes share their first n * BLOCK_BYTES bytes, but for collisions of 64 bits, which cost
    a detour and no more.
    """
    text = memoryview(prompt)[: BLOCK_BYTES * MAX_BLOCKS]
    hashes: list[int] = []
    last = hash(model)
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        last = hash((last, bytes(text[start : start + BLOCK_BYTES])))
        hashes.append(last)
    return hashes
