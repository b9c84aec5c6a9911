"""JSON schemas by chance, and answers that a model without sense gives under them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import torch
from tests.helpers.decoding import Bench, new

from sagellm_core.decoding.grammar import GrammarCompiler
from sagellm_core.text import Tokenizer
from sagellm_protocol.sampling import Grammar

_NAMES = ("name", "id", "tags", "naïve", "a b", "x", "数", 'q"uote', "$ref_", "")
_PATTERNS = ("^[a-z]{1,4}$", "^(ab|cd)+$", "^\\d{2}-\\d{2}$", "^x?y*z$")
_FORMATS = ("date", "time", "uuid", "ipv4")


def schema(draw: Random, depth: int = 3) -> dict[str, Any]:
    """A schema of the kinds that applications use: nested objects and lists, bounds, patterns, unions, references."""
    made = _node(draw, depth)
    if draw.random() < 0.15:
        item = {"type": "object", "properties": {"value": made, "next": {"anyOf": [{"type": "null"}, _SELF]}}}
        return {"$defs": {"node": item | {"required": ["value"], "additionalProperties": False}}, **_SELF}
    return made


_SELF = {"$ref": "#/$defs/node"}


def _node(draw: Random, depth: int) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "enum", "const"]
    if depth:
        kinds += ["object", "object", "array", "union"]
    kind = draw.choice(kinds)
    if kind == "object":
        return _object(draw, depth)
    if kind == "array":
        low = draw.randrange(3)
        return {"type": "array", "items": _node(draw, depth - 1), "minItems": low, "maxItems": low + draw.randrange(3)}
    if kind == "union":
        return {"anyOf": [_node(draw, depth - 1), {"type": "null"}]}
    return _leaf(draw, kind)


def _object(draw: Random, depth: int) -> dict[str, Any]:
    names = draw.sample(_NAMES, draw.randrange(4))
    return {
        "type": "object",
        "properties": {name: _node(draw, depth - 1) for name in names},
        "required": [name for name in names if draw.random() < 0.7],
        "additionalProperties": False,
    }


def _leaf(draw: Random, kind: str) -> dict[str, Any]:
    if kind == "enum":
        return {"enum": draw.sample(["red", "grün", 3, -1.5, None, True, "a\nb"], draw.randint(1, 4))}
    if kind == "const":
        return {"const": draw.choice(["fixed", 7, {"a": [1]}, None])}
    if kind == "string":
        form = draw.choice([("pattern", draw.choice(_PATTERNS)), ("format", draw.choice(_FORMATS)), ("minLength", 2)])
        return {"type": "string", "maxLength": 40, form[0]: form[1]}
    if kind == "boolean":
        return {"type": "boolean"}
    low = draw.randint(-1000, 1000)
    bounds: dict[str, int] = draw.choice(
        [{}, {"minimum": low}, {"minimum": low, "maximum": low + draw.randint(0, 500)}]
    )
    return {"type": kind, **bounds}


def sensible_bias(tokenizer: Tokenizer) -> torch.Tensor:
    """What a model without sense needs to come to an end: a liking for what closes, a dislike of blanks."""
    liking = torch.zeros(tokenizer.vocab_size)
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token(token)
        liking[token] = 6.0 if text in ('"', "}", "]") else -4.0 if not text.strip() else 0.0
    return liking


def answer(
    compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: Grammar, eos: int, seed: int, limit: int = 400
) -> str | None:
    """What random logits give under a grammar; None where no end was reached."""
    tokens, _ = steps(compiler, tokenizer, grammar, eos, seed, limit)
    return tokenizer.decode(tokens[:-1], skip_special_tokens=False) if tokens[-1] == eos else None


def steps(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    grammar: Grammar,
    eos: int,
    seed: int,
    limit: int = 400,
    *,
    forces: bool = True,
    temperature: float = 1.0,
) -> tuple[list[int], int]:
    """Tokens that random logits give under a grammar, and in how many steps. Every token has logits of its own."""
    sampling: dict[str, Any] = {"grammar": grammar, "temperature": temperature, "seed": seed}
    bench = Bench(new("s", stop_ids=[eos], max_tokens=2 * limit, **sampling), grammars=compiler)
    bench.decoder.forces = forces
    noise = torch.Generator().manual_seed(seed)
    liking, tokens, count = sensible_bias(tokenizer), list[int](), 0
    while len(tokens) < limit and eos not in tokens:
        got = bench.tokens({"s": (torch.randn(len(liking), generator=noise) + liking)[None]})[0]
        assert min(got) >= 0
        torch.randn(len(got) - 1, len(liking), generator=noise)
        tokens, count = tokens + got, count + 1
    return tokens, count


def as_grammar(schema: dict[str, Any]) -> Grammar:
    return Grammar(kind="json_schema", text=json.dumps(schema))
