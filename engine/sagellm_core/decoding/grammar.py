"""Structured output: which tokens may come next so that the answer follows a grammar (llguidance; no torch).

A grammar is tried in a process of its own and compiled on a thread of its own before its request is admitted, within
limits, so that a hostile one is refused and never reaches a step. Compiled grammars are kept; a sequence takes a copy.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from sagellm_core.decoding.grammar_guard import GrammarGuard
from sagellm_core.errors import EngineError, invalid
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.sampling import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

MAX_TEXT = 256 * 1024
"""Characters of a schema, expression or grammar; more is refused unread."""
MAX_SECONDS = 1.0
"""Processor time that compiling and the first mask may take; more is refused, because steps would take as long."""
_KEPT = 128
WAIT_SECONDS = 60.0
"""How long a request waits for its grammar; the first also waits until the tokenizer was read once more."""
# Between two tokens of JSON at most this much white space: a model cannot fill its answer with blanks.
_JSON: JsonCompileOptions = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,20}"}


class GrammarState:
    """Where one sequence stands in its grammar, over a vocabulary of `words` times 32 tokens."""

    def __init__(self, matcher: LLMatcher, words: int) -> None:
        self._matcher = matcher
        self._mask = numpy.zeros((1, words), dtype=numpy.int32)
        self._address: int = self._mask.ctypes.data
        self._ready = False

    @property
    def mask_address(self) -> int:
        """Where the bits of the tokens are that are allowed now, a bit a token; good until the next `accept`."""
        self.prepare()
        return self._address

    def prepare(self) -> None:
        """Find out what is allowed now, if it is not known yet."""
        if not self._ready:
            self._matcher.unsafe_compute_mask_ptr(self._address, self._mask.nbytes)
            self._ready = True

    def masks(self, ahead: Sequence[int] = ()) -> NDArray[numpy.int32]:
        """Bits of the allowed tokens (1 + len(ahead), words): now, and after each token of `ahead`.

        Rows after a token of `ahead` that is not allowed are empty. Good until the next `accept`.
        """
        self.prepare()
        if not ahead:
            return self._mask
        masks = numpy.zeros((1 + len(ahead), self._mask.shape[1]), dtype=numpy.int32)
        masks[0] = self._mask[0]
        matcher, taken = self._matcher, 0
        allowed = matcher.validate_tokens(list(ahead))
        for row, token in zip(masks[1 : 1 + allowed], ahead, strict=False):
            if matcher.is_stopped() or not matcher.try_consume_tokens([token]):
                break
            taken += 1
            matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        if taken:
            matcher.rollback(taken)
        return masks

    def accept(self, token: int) -> None:
        self._ready = False
        self._matcher.consume_token(token)

    def forced(self) -> int | None:
        """The only token that is allowed now; None where there are several, or none.

        Where the grammar forces text that several tokens begin, only the one that the tokenizer makes of it is allowed.
        """
        self.prepare()
        if numpy.count_nonzero(self._mask) != 1:
            return None
        at = int(numpy.flatnonzero(self._mask)[0])
        word = int(self._mask[0, at]) & 0xFFFFFFFF
        return None if word & (word - 1) else 32 * at + word.bit_length() - 1

    @property
    def fault(self) -> str:
        """Why the grammar cannot go on (a limit was reached); empty while it can."""
        return self._matcher.get_error() if self._matcher.is_error() else ""

    def fork(self) -> GrammarState:
        """A copy that goes its own way; what is known of its mask is copied too."""
        other = GrammarState(self._matcher.deep_copy(), self._mask.shape[1])
        if self._ready:
            other._mask[:] = self._mask
            other._ready = True
        return other


class GrammarCompiler:
    """Grammars over the vocabulary of the model in a folder. Thread-safe."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, GrammarState] = OrderedDict()
        self._door = threading.Lock()
        self._compiling = threading.Lock()

    def start(self, grammar: Grammar) -> GrammarState:
        """The state before the first token. Raises EngineError (invalid_argument) with the reason and the field."""
        with self._door:
            known = self._compiled.get(grammar)
        if known is None:
            with self._compiling:
                known = self._compile(grammar)
        with self._door:
            self._compiled[grammar] = known
            self._compiled.move_to_end(grammar)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return known.fork()

    async def admit(self, grammar: Grammar) -> None:
        """Compile a grammar aside, so that a sequence can start with it at once.

        Raises EngineError: invalid_argument for what cannot be used, resource_exhausted when others take too long.
        """
        with self._door:
            if grammar in self._compiled:
                return
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(_pool(), self._try, grammar), WAIT_SECONDS)
        except TimeoutError as error:
            message = "other grammars are being compiled; try again soon"
            raise EngineError(ErrorCode.RESOURCE_EXHAUSTED, message, param="grammar") from error

    def _try(self, grammar: Grammar) -> None:
        with self._door:
            if grammar in self._compiled:
                return
        _check_size(grammar)
        if objection := _guard().objection(grammar):
            raise invalid(objection, "grammar")
        self.start(grammar)

    def _compile(self, grammar: Grammar) -> GrammarState:
        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer()
        state = GrammarState(compile_grammar(self._tokenizer, grammar), (self._vocab_size + 31) // 32)
        state.prepare()
        return state

    def _read_tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        from sagellm_core.models.bundle import end_ids
        from sagellm_core.models.config import read_generation_defaults
        from sagellm_core.text.tokenizer import Tokenizer

        tokenizer = Tokenizer(self._folder)
        ends = sorted(end_ids(read_generation_defaults(self._folder), tokenizer))
        return LLTokenizer(tokenizer.to_json(), n_vocab=self._vocab_size, eos_token=ends or None)


def compile_grammar(tokenizer: LLTokenizer, grammar: Grammar) -> LLMatcher:
    """A grammar before its first token. Raises EngineError (invalid_argument) with the reason."""
    from llguidance import LLMatcher, LLParserLimits

    _check_size(grammar)
    begun = thread_time()
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(tokenizer, _translate(grammar), log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise invalid(f"the {grammar.kind} cannot be used: {_reason(matcher.get_error())}", "grammar")
    if thread_time() - begun > MAX_SECONDS:
        raise invalid(f"the {grammar.kind} is too complex", "grammar")
    return matcher


@cache
def _pool() -> ThreadPoolExecutor:
    """One thread compiles for all: grammars that take long delay each other, not the steps."""
    return ThreadPoolExecutor(1, thread_name_prefix="sage-grammars")


@cache
def _guard() -> GrammarGuard:
    return GrammarGuard()


@lru_cache(maxsize=4)
def grammar_compiler(folder: Path, vocab_size: int) -> GrammarCompiler:
    """The compiler for a model: one in a process, so that what admission compiled is there in the step."""
    return GrammarCompiler(folder, vocab_size)


def _check_size(grammar: Grammar) -> None:
    if len(grammar.text) > MAX_TEXT:
        raise invalid(f"the {grammar.kind} has {len(grammar.text)} characters; at most {MAX_TEXT}", "grammar")


def _translate(grammar: Grammar) -> str:
    """llguidance's own form. Raises EngineError for text that is not even JSON, or not a grammar."""
    from llguidance import LLMatcher, regex_to_lark
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        if grammar.kind == "json_object":
            return LLMatcher.grammar_from_json_schema('{"type": "object"}', overrides=_JSON)
        if grammar.kind == "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.text, overrides=_JSON)
        if grammar.kind == "regex":
            # A digit is one of 0 to 9: nobody who writes \d expects the digits of every script.
            return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(grammar.text, 'd')}/")
        return LLMatcher.grammar_from_lark(any_to_lark(grammar.text))
    except Exception as error:  # the translator of grammars raises bare Exception
        raise invalid(f"the {grammar.kind} cannot be read: {_reason(str(error))}", "grammar") from error


def _reason(message: str) -> str:
    line = " ".join(message.split())
    return line[:300] or "nothing can satisfy it"
