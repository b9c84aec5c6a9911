"""Text to weighted lexical features, for the `hash` method. Knows nothing of vectors.

A feature's weight stands for how much it says about a text's topic: code-like words and numbers most, ordinary words
next, very common words little, function words almost nothing. Word order enters through pairs of neighbouring words,
spelling variants through the character n-grams of each word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

# A compound is what programmers write as one: --no-embedding, state.db, /v1/models, SAGE_HOME, sage.llm, gpt-2.
_COMPOUND = re.compile(r"(?:--?|/|\.)?[^\W_](?:[^\W_]|[-_./:@](?=[^\W_]))*")
_PART = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_FUNCTION = """
a about above after again all also am an and any are as at be because been before being below between both but by
can could d did do does doing down during each few for from further had has have having he her here hers him his how
i if in into is it its itself just let ll m me more most my myself no nor not of off on once one only or other our
out over own please re s same she should so some such t than that the their them then there these they this those
through to too under until up us ve very was we were what when where which while who whom whose why will with would
yet you your yours
"""
_COMMON = """
able another around back become begin best better big call called case change come contain day different else end
even every everything example find first follow following found get give given go going good great happen help hold
instead keep kind know large last later less like little long look lot made main make many may mean might mostly
move much must name need needs never new next now number old order others part place point possible put really right
say says see seem set several show shows since small something still sure take tell than thing things think time
told try two type unless usage use used user uses using usual usually want way ways well whether within without work
works write yes
"""
_FUNCTION_WORDS = frozenset(_FUNCTION.split())
_COMMON_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class FeatureWeights:
    """How much each kind of feature counts, relative to an ordinary word (1.0)."""

    function_word: float = 0.08
    common_word: float = 0.6
    code: float = 1.25
    number: float = 1.25
    part: float = 0.8
    pair: float = 0.2
    grams: float = 0.3
    gram_sizes: tuple[int, ...] = (3, 4, 5)


WEIGHTS = FeatureWeights()
LONG = 48  # longer "words" are keys, hashes, encoded data: they are not remembered and not cut into n-grams


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a text: its stem, how much it counts, and whether it takes part in pairs and n-grams."""

    stem: str
    weight: float
    content: bool


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a text in order; a compound is followed by its parts."""
    tokens: list[Token] = []
    for match in _COMPOUND.findall(text):
        tokens.extend(_remembered(match) if len(match) <= LONG else _tokens_of(match))
    return tokens


@lru_cache(maxsize=16384)
def _remembered(word: str) -> tuple[Token, ...]:
    """Return what `_tokens_of` returns; words of ordinary length come again and again."""
    return _tokens_of(word)


def _tokens_of(word: str) -> tuple[Token, ...]:
    """Return the tokens of one whitespace-free piece: itself, and its parts where it is a compound."""
    if _CJK.search(word):
        return _cjk_tokens(word)
    pieces = [piece for part in _PART.findall(word) for piece in _CAMEL.split(part)]
    whole = word.casefold().lstrip("/.") if not word.startswith("-") else word.casefold()
    if len(pieces) == 1 and whole == pieces[0].casefold():
        return (_simple(whole, 1.0),)
    if all(piece.isdigit() for piece in pieces):
        return (Token(whole, WEIGHTS.number, content=True),)
    parts = tuple(_simple(piece.casefold(), WEIGHTS.part) for piece in pieces)
    return (Token(whole, WEIGHTS.code, content=False), *parts)


def _simple(word: str, scale: float) -> Token:
    """Return the token of a plain word or number."""
    if word in _FUNCTION_WORDS:
        return Token(word, WEIGHTS.function_word * scale, content=False)
    if any(character.isdigit() for character in word):
        return Token(word, WEIGHTS.number * scale, content=True)
    if word in _COMMON_WORDS:
        return Token(stem(word), WEIGHTS.common_word * scale, content=False)
    return Token(stem(word), scale, content=True)


def _cjk_tokens(word: str) -> tuple[Token, ...]:
    """Chinese, Japanese and Korean have no spaces: single characters count little, neighbouring pairs as words."""
    singles = tuple(Token(character, 0.4, content=False) for character in word)
    pairs = tuple(Token(word[at : at + 2], 1.0, content=False) for at in range(len(word) - 1))
    return singles + pairs


def stem(word: str) -> str:
    """Return a word without its common English endings, so that serve, serves, served and serving agree."""
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, replacement, shortest in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= shortest:
            word = word[: len(word) - len(ending)] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] in "bdgmnprt":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word


# (ending, what stands in its place, the least number of letters that must be left)
_ENDINGS = (
    ("ations", "", 4), ("ation", "", 4), ("ingly", "", 3), ("ings", "", 3), ("ing", "", 3), ("ies", "y", 2),
    ("ied", "y", 2), ("sses", "ss", 2), ("xes", "x", 2), ("ches", "ch", 2), ("shes", "sh", 2), ("ers", "", 4),
    ("ed", "", 3), ("er", "", 4), ("ly", "", 4), ("ss", "ss", 0), ("us", "us", 0), ("is", "is", 0), ("s", "", 3),
)  # fmt: skip


def token_features(token: Token) -> list[tuple[str, float]]:
    """Return the features of one token: its stem, and for content words its character n-grams."""
    features = [("w:" + token.stem, token.weight)]
    if not token.content or not 3 <= len(token.stem) <= LONG or token.stem.isdigit():
        return features
    framed = f"<{token.stem}>"
    grams = [framed[at : at + n] for n in WEIGHTS.gram_sizes for at in range(len(framed) - n + 1) if n < len(framed)]
    if grams:
        weight = token.weight * WEIGHTS.grams / len(grams) ** 0.5
        features.extend(("c:" + gram, weight) for gram in grams)
    return features


def pair_features(tokens: list[Token]) -> list[tuple[str, float]]:
    """Return one feature for each two neighbouring content words (function words between them are skipped)."""
    words = [token for token in tokens if token.content]
    return [
        (f"p:{left.stem} {right.stem}", WEIGHTS.pair * (left.weight * right.weight) ** 0.5)
        for left, right in pairwise(words)
    ]
