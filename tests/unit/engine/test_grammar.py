"""Structured output: every answer fits its grammar, and grammars that mean harm are refused in time (SPEC E3)."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from tests.helpers.decoding import Bench, new
from tests.helpers.schemas import answer, as_grammar, schema, steps
from tests.helpers.tiny_models import EOS, tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig
from sagellm_core.decoding.grammar import MAX_TEXT, GrammarCompiler
from sagellm_core.decoding.grammar_guard import GrammarGuard
from sagellm_core.text import Tokenizer
from sagellm_protocol import ErrorCode, Grammar, SamplingParams

pytestmark = pytest.mark.spec("E3")


@pytest.fixture(scope="module")
def folder() -> Path:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def compiler(folder: Path, tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(folder, tokenizer.vocab_size)


def all_answers_fit(compiler: GrammarCompiler, tokenizer: Tokenizer, schemas: int, samples: int, seed: int) -> None:
    ended = 0
    for number in range(schemas):
        wanted = schema(Random(seed + number))
        validator = Draft202012Validator(wanted, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for sample in range(samples):
            text = answer(compiler, tokenizer, as_grammar(wanted), EOS, sample)
            if text is not None:
                ended += 1
                validator.validate(json.loads(text))
    assert ended > 0.9 * schemas * samples


def test_answers_fit_generated_schemas(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    all_answers_fit(compiler, tokenizer, schemas=12, samples=2, seed=10_000)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_answers_fit_three_hundred_generated_schemas(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    all_answers_fit(compiler, tokenizer, schemas=300, samples=5, seed=0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_without_a_choice_come_along_and_are_those_that_would_come(
    temperature: float, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    saved = 0
    for number in range(12):
        grammar = as_grammar(schema(Random(20_000 + number)))
        for forces in (True, False):
            tokens, count = steps(
                compiler, tokenizer, grammar, EOS, number, 150, forces=forces, temperature=temperature
            )
            if forces:
                expected, saved = tokens, saved + len(tokens) - count
            else:
                assert count == len(tokens)
                assert tokens == expected[: len(tokens)]
                assert len(expected) - len(tokens) < 32
    assert saved > 20


GRAMMARS = {
    "regex": (Grammar(kind="regex", text=r"(\d{1,3}\.){3}\d{1,3}"), r"(\d{1,3}\.){3}\d{1,3}"),
    "gbnf": (Grammar(kind="ebnf", text='root ::= ("a" | "b"){2,5} tail\ntail ::= "!" [0-9]?'), r"[ab]{2,5}!\d?"),
    "lark": (Grammar(kind="ebnf", text='start: WORD (" " WORD)?\nWORD: /[a-z]{1,3}/'), r"[a-z]{1,3}( [a-z]{1,3})?"),
    "multibyte": (Grammar(kind="regex", text="(好|é|🚀){2}"), "(好|é|🚀){2}"),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_answers_match_expressions_and_grammars(name: str, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    grammar, pattern = GRAMMARS[name]
    texts = {answer(compiler, tokenizer, grammar, EOS, seed) for seed in range(6)}
    assert len(texts) > 1
    assert [text for text in texts if text is None or not re.fullmatch(pattern, text)] == []


def test_any_object_is_an_object(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    texts = [answer(compiler, tokenizer, Grammar(kind="json_object"), EOS, seed) for seed in range(4)]
    ended = [json.loads(text) for text in texts if text is not None]
    assert ended
    assert all(isinstance(each, dict) for each in ended)


def test_a_grammar_binds_its_row_alone_and_ends_over_min_tokens(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """A grammar with one answer: its row is forced, its neighbour is not; min_tokens cannot ask for more."""
    forced = new("forced", [], [EOS], grammar=Grammar(kind="regex", text="ok"), min_tokens=30, seed=1)
    bench = Bench(forced, new("free", [], [EOS], seed=1), grammars=compiler)
    logits = torch.randn(1, tokenizer.vocab_size, generator=torch.Generator().manual_seed(0))
    tokens: list[int] = []
    while EOS not in tokens:
        got = bench.tokens({"forced": logits, "free": logits})
        tokens += got[0]
        assert got[1] == [int(logits.argmax())]
    assert tokenizer.decode(tokens[:-1]) == "ok"


def test_drafts_under_a_grammar_are_kept_only_where_it_allows_them(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    grammar = Grammar(kind="regex", text="[ab]{8}")
    letters = tokenizer.encode("a") + tokenizer.encode("b") + tokenizer.encode("c")
    logits = torch.zeros(tokenizer.vocab_size)
    logits[letters[0]], logits[letters[2]] = 5.0, 9.0

    def got(drafts: list[int]) -> list[int]:
        bench = Bench(new("s", [], [EOS], grammar=grammar), grammars=compiler)
        tokens = bench.tokens({"s": logits.expand(len(drafts) + 1, -1)}, {"s": drafts})[0]
        return tokens + bench.tokens({"s": logits[None]})[0]

    a, b, c = letters
    assert got([a, a, a]) == [a] * 5
    assert got([a, b, a]) == [a, a, a]
    assert got([a, c, a]) == [a, a, a]


def test_drafts_beyond_the_end_of_a_grammar_do_no_harm(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    (a,) = tokenizer.encode("a")
    logits = torch.zeros(tokenizer.vocab_size)
    for drafts in ([a, EOS, a, a], [a, EOS, EOS], [a, a, EOS], [EOS, a]):
        bench = Bench(new("s", [], [EOS], grammar=Grammar(kind="regex", text="a")), grammars=compiler)
        first = bench.tokens({"s": logits.expand(len(drafts) + 1, -1)}, {"s": drafts})[0]
        rest = [] if EOS in first else bench.tokens({"s": logits[None]})[0]
        assert first + rest == [a, EOS]


def test_a_grammar_that_cannot_be_had_fails_its_row_alone(tokenizer: Tokenizer) -> None:
    logits = torch.zeros(1, tokenizer.vocab_size)
    bench = Bench(new("s", [], [EOS], grammar=Grammar(kind="json_object")), new("free"))
    output = bench.step({"s": logits, "free": logits})
    assert [token.token_id for token in output.tokens["s"]] == [-1]
    assert "tokenizer" in output.failures["s"]
    assert [token.token_id for token in output.tokens["free"]] == [0]
    assert "free" not in output.failures


NEST = 100_000
HOSTILE: dict[str, tuple[str, str]] = {
    "not json": ("json_schema", '{"type": '),
    "not a schema": ("json_schema", "[1]"),
    "unknown type": ("json_schema", '{"type": "strin"}'),
    "nothing fits": ("json_schema", '{"type": "integer", "minimum": 3, "maximum": 2}'),
    "far away": ("json_schema", '{"$ref": "http://127.0.0.1:9/schema.json"}'),
    "itself": ("json_schema", '{"$ref": "#"}'),
    "deep": ("json_schema", '{"type":"object","properties":{"a":' * 5000 + "{}" + "}}" * 5000),
    "product of unions": (
        "json_schema",
        json.dumps(
            {
                "allOf": [
                    {"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(8)]} for i in range(8)
                ]
            }
        ),
    ),
    "too long": ("json_schema", " " * (MAX_TEXT + 1)),
    "open group": ("regex", "((("),
    "look-ahead": ("regex", "(?=a)b"),
    "nested groups": ("regex", "(" * 20_000 + "a" + ")" * 20_000),
    "garbage": ("ebnf", "%%%%&&& ::= ((("),
    "empty": ("ebnf", ""),
    "nested parentheses": ("ebnf", "root ::= " + "(" * NEST + '"a"' + ")" * NEST),
    "a chain of rules": (
        "ebnf",
        "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} | "x"' for i in range(8000)) + '\nr8000 ::= "y"',
    ),
}


@pytest.mark.slow
async def test_hostile_grammars_are_refused_in_bounded_time(compiler: GrammarCompiler) -> None:
    """The event loop runs on while they are looked at; a good grammar is admitted between and after them."""
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(heart())
    for name, (kind, text) in HOSTILE.items():
        begun = monotonic()
        with pytest.raises(EngineError) as caught:
            await compiler.admit(Grammar(kind=kind, text=text))  # type: ignore[arg-type]
        assert (name, caught.value.error_code, caught.value.param) == (name, ErrorCode.INVALID_ARGUMENT, "grammar")
        assert len(str(caught.value)) < 500
        assert monotonic() - begun < 30
    await compiler.admit(Grammar(kind="regex", text="fine"))
    beating.cancel()
    assert beats > 20


def test_what_takes_too_long_to_compile_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetition of repetition takes as long as it likes to; here any time is too long."""
    compiler = GrammarCompiler(folder, Tokenizer(folder).vocab_size)
    grammar = Grammar(kind="regex", text="((a{100}){100}){100}")
    monkeypatch.setattr("sagellm_core.decoding.grammar.MAX_SECONDS", 0.0)
    with pytest.raises(EngineError, match="too complex"):
        compiler.start(grammar)
    monkeypatch.setattr("sagellm_core.decoding.grammar.MAX_SECONDS", 1e9)
    assert compiler.start(grammar).fault == ""


@pytest.mark.faults
def test_the_guard_comes_back_after_its_process_was_killed() -> None:
    guard = GrammarGuard()
    try:
        good = Grammar(kind="regex", text="a|b")
        assert guard.objection(good) == ""
        child = guard._child
        assert child is not None
        child.kill()
        child.wait()
        assert guard.objection(good) == ""
        chain = Grammar(kind=HOSTILE["a chain of rules"][0], text=HOSTILE["a chain of rules"][1])  # type: ignore[arg-type]
        assert "time or memory" in guard.objection(chain)
        assert guard.objection(good) == ""
    finally:
        guard.close()


_RECORD = {
    "type": "object",
    "properties": {"first name": {"type": "string", "maxLength": 6}, "size": {"type": "integer"}},
    "required": ["first name", "size"],
    "additionalProperties": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3"])
async def test_steps_with_masks_give_the_answers_of_logits_that_are_changed(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels' steps and torch's: greedy, drawn and drafted rows with a grammar beside one without."""
    wishes: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "seed": 5},
        {"min_tokens": 9},
        {"n_speculative_tokens": 3},
        {"repetition_penalty": 1.2},
    ]

    async def answers() -> list[list[int]]:
        config = LLMEngineConfig(model_path=str(tiny_model(family)), backend_type="cpu", dtype="float32", num_threads=2)
        engine = LLMEngine(config)
        await engine.start()
        try:
            bound = [SamplingParams(grammar=as_grammar(_RECORD), max_tokens=40, **wish) for wish in wishes]
            params = [*bound, SamplingParams(max_tokens=40, ignore_eos=True)]
            got = await asyncio.gather(*(engine.generate([3, 1, 4, 1], sampling_params=each) for each in params))
            return [each.output_tokens for each in got]
        finally:
            await engine.stop()

    found = await answers()
    assert found[0] == found[3], "drafts change nothing"
    monkeypatch.setattr("sagellm_core.backends.cpu.kernels", lambda: None)
    monkeypatch.setattr("sagellm_core.decoding.state.SequenceState.force", lambda state: [])
    assert await answers() == found


@pytest.mark.slow
async def test_an_engine_answers_in_the_form_that_was_asked_for(folder: Path) -> None:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), backend_type="cpu", dtype="float32"))
    await engine.start()
    wanted: dict[str, Any] = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22, 333]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }

    async def ask(grammar: Grammar, **more: Any) -> str:
        params = SamplingParams(grammar=grammar, max_tokens=200, temperature=1.0, seed=3, **more)
        response = await engine.generate("The quick", sampling_params=params)
        assert response.finish_reason == "stop"
        return response.output_text

    try:
        texts = await asyncio.gather(ask(as_grammar(wanted)), ask(Grammar(kind="regex", text="yes|no")))
        Draft202012Validator(wanted).validate(json.loads(texts[0]))
        assert texts[1] in ("yes", "no")
        repetitive = Grammar(kind="regex", text=r'(\{"key": "value", "n": [0-9]\} ){6}')
        assert await ask(repetitive, n_speculative_tokens=4) == await ask(repetitive)
        with pytest.raises(EngineError, match="unclosed group"):
            await ask(Grammar(kind="regex", text="((("))
    finally:
        await engine.stop()
