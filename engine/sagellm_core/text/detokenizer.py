"""Token ids to text as they come, without ever showing half a character.

A token's text depends on its neighbours (byte-level BPE cuts characters, SentencePiece drops a leading space), so a
short window of tokens is decoded with and without the new ones, and the difference is what they add. Text that ends
in U+FFFD may be the start of a character: it is held back until the character is whole, or cannot become whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from sagellm_core.text.tokenizer import Tokenizer

_CONTEXT = 5
_LONGEST_CHARACTER = 8
_LONGEST_WINDOW = 16
_LONGEST_SILENCE = 64
_INCOMPLETE = "\ufffd"


class Detokenizer:
    """The text of one output. The chunks together are the decoding of the output after its prompt."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window, self._known = self._tail(prompt)
        self._pending = 0

    def push(self, token_id: int) -> str:
        """The text that is certain after this token; empty while a character is incomplete."""
        self._window.append(token_id)
        self._pending += 1
        text = self._decode(self._window)
        if text.endswith(_INCOMPLETE) and self._pending < _LONGEST_CHARACTER:
            return ""
        return self._take(text)

    def flush(self) -> str:
        """What is still held back, when no more tokens come."""
        return self._take(self._decode(self._window)) if self._pending else ""

    def _take(self, text: str) -> str:
        chunk = text[len(self._known) :]
        self._known = text
        self._pending = 0
        if len(self._window) > _LONGEST_WINDOW:
            self._window, self._known = self._tail(self._window)
        return chunk

    def _tail(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """The last few tokens and their text, cut between characters: bytes after half a one would decode to nothing.

        Where every cut leaves broken text (the tokens themselves are broken), the longest one. Tokens without any text
        (special ones) do not count: after them alone, a word would pass for the first, and lose its space.
        """
        for size in range(_CONTEXT, _CONTEXT + _LONGEST_CHARACTER):
            tail = list(ids[-size:])
            text = self._decode(tail)
            if text and _INCOMPLETE not in text:
                return tail, text
        if not text:
            tail = list(ids[-_LONGEST_SILENCE:])
            text = self._decode(tail)
        return tail, text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)
