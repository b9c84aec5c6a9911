"""Draft tokens by looking up: what followed the last time that the text ended like this.

Prompt lookup decoding (Saxena 2023) over the sequence's own tokens: worth much where an answer copies from its prompt
(code edits, extraction, summaries), nothing elsewhere, so the number of drafts follows their success.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

LONGEST = 4
SHORTEST = 2


class Drafter:
    """Proposals for one sequence, whose tokens only ever grow. `propose` costs a few lookups a new token.

    `proposed` and `accepted` count tokens since the beginning. With `lookup` off, the tokens come from elsewhere (a
    draft model), and only their number is decided here.
    """

    def __init__(self, most: int, *, lookup: bool = True) -> None:
        self.proposed = 0
        self.accepted = 0
        self.most = most
        self._lookup = lookup
        self._width = most
        self._seen: list[dict[tuple[int, ...], int]] = [{} for _ in range(SHORTEST, LONGEST + 1)]
        self._indexed = 0
        self._given: list[int] = []

    def give(self, drafts: list[int]) -> None:
        """Take in what a draft model proposes to follow the tokens as they are now."""
        self._given = drafts

    def propose(self, tokens: Seq[int], room: int) -> list[int]:
        """Tokens that may follow, at most `room`; often none."""
        count = min(room, self._width)
        if count < 1:
            return []
        if not self._lookup:
            given, self._given = self._given, []
            return given[:count]
        self._index(tokens)
        start = self._find(tokens)
        return [] if start is None else _read_on(tokens, start, count)

    def record(self, proposed: int, accepted: int) -> None:
        """What became of a step's drafts: all right, and the next may be twice as many; none, and they are halved."""
        self.proposed += proposed
        self.accepted += accepted
        if accepted == proposed:
            self._width = min(self.most, 2 * self._width)
        elif not accepted:
            self._width = max(1, self._width // 2)

    def _index(self, tokens: Seq[int]) -> None:
        """Remember where the n-grams end, all but those that end the text."""
        for end in range(max(self._indexed, SHORTEST), len(tokens)):
            for size, seen in enumerate(self._seen, SHORTEST):
                if size <= end:
                    seen[tuple(tokens[end - size : end])] = end
        self._indexed = len(tokens)

    def _find(self, tokens: Seq[int]) -> int | None:
        """Where the longest n-gram that ends the text last ended before."""
        for size in range(LONGEST, SHORTEST - 1, -1):
            start = self._seen[size - SHORTEST].get(tuple(tokens[-size:]))
            if start is not None and size <= len(tokens):
                return start
        return None


def _read_on(tokens: Seq[int], start: int, count: int) -> list[int]:
    """`count` tokens from `start` on; past the end, the copy goes on with itself (a repetition repeats)."""
    period = len(tokens) - start
    return [tokens[start + offset % period] for offset in range(count)]
