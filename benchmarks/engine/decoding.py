"""What decoding costs beside the model: structured output, and what looking up n-grams gains on copy-heavy prompts.

Both are ratios of one engine with itself, requests with and without taking turns.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.engine.models import MEDIUM, SMALL, Shape, folder_of
from benchmarks.environments import cache_folder
from benchmarks.findings import Finding

if TYPE_CHECKING:
    from sagellm_core import LLMEngine
    from sagellm_protocol import SamplingParams


def _records(name: dict[str, object]) -> dict[str, object]:
    """A list of records. Endless: the answers end by their number of tokens, as those without a grammar do."""
    fields = {"name": name, "size": {"type": "integer"}, "tags": {"enum": ["a", "b", "c"]}}
    record = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "array", "minItems": 1000, "items": record}


# Random weights fill white space and then a string that never ends: hardly a token is forced, and most masks are large.
_OPEN = _records({"type": "string"})
# Names end, so that records follow each other and their keys are forced, as in the answers of a trained model.
_CLOSED = _records({"type": "string", "maxLength": 8})
_CYCLE = 96
_SHOWN, _SPAN = 18, 24
_DRAFTS = 8
_ROUNDS = {SMALL: 25, MEDIUM: 5}


def measure() -> list[Finding]:
    """All of them."""
    shapes = (MEDIUM, SMALL)
    overheads = [structured_output(shape, width) for shape in shapes for width in (1, 16)]
    overheads += [structured_output(shape, 1, _CLOSED, "short names") for shape in shapes]
    return overheads + [n_grams(shape) for shape in shapes]


def structured_output(
    shape: Shape, width: int, schema: dict[str, object] = _OPEN, kind: str = "endless names"
) -> Finding:
    """Seconds of `width` answers under a JSON schema over those of as many tokens without, less 1."""
    draw = Random(width)
    prompts = [[draw.randrange(300, 8000) for _ in range(32)] for _ in range(width)]

    def params(constrained: bool) -> SamplingParams:
        from sagellm_protocol import Grammar, SamplingParams

        if constrained:
            return SamplingParams(max_tokens=48, grammar=Grammar(kind="json_schema", text=json.dumps(schema)))
        return SamplingParams(max_tokens=48, ignore_eos=True)

    seconds = _in_turns(folder_of(shape, cache_folder()), prompts, params, _ROUNDS[shape])
    with_it, without = (statistics.median(seconds[constrained]) for constrained in (True, False))
    return Finding(
        f"{shape.title}, {width} at once: what a JSON schema ({kind}) adds to a token",
        f"{1e3 * with_it / 48:.2f} / {1e3 * without / 48:.2f} ms, "
        f"{48 * width / with_it:,.0f} / {48 * width / without:,.0f} tok/s",
        with_it / without - 1,
        0.05,
    )


def n_grams(shape: Shape) -> Finding:
    """One stream of an answer of which three quarters stand in the prompt: with drafts looked up there / plain."""
    folder = copying_model(shape, cache_folder())

    def params(speculates: bool) -> SamplingParams:
        from sagellm_protocol import SamplingParams

        return SamplingParams(max_tokens=_CYCLE, ignore_eos=True, n_speculative_tokens=_DRAFTS if speculates else 0)

    seconds = _in_turns(folder, [copy_prompt()], params, _ROUNDS[shape])
    with_it, without = (statistics.median(seconds[speculates]) for speculates in (True, False))
    return Finding(
        f"{shape.title}, one stream, copy-heavy prompt: n-gram speculation / plain",
        f"{_CYCLE / with_it:,.0f} / {_CYCLE / without:,.0f} tok/s",
        without / with_it,
        1.7,
        at_least=True,
    )


def copying_model(shape: Shape, cache: Path) -> Path:
    """A folder of this shape whose model goes round in a cycle of 96 tokens, made when it is not there.

    Embeddings outweigh what the random layers add, and the head's row of a token is the embedding of the one before it
    in the cycle. A step costs what it does with any weights.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = cache / "models" / f"{shape.name}-copying"
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder_of(shape, cache), part)
    config = json.loads((part / "config.json").read_text(encoding="utf-8"))
    (part / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), encoding="utf-8")
    tensors = load_file(part / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"] * 200
    before = torch.arange(shape.vocabulary)
    before[_cycle()[1:] + _cycle()[:1]] = torch.tensor(_cycle())
    tensors |= {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding[before].contiguous()}
    save_file(tensors, part / "model.safetensors", {"format": "pt"})
    part.rename(folder)
    return folder


def copy_prompt() -> list[int]:
    """Three quarters of the cycle in spans, with other tokens between them; the answer begins where the cycle does."""
    cycle, draw = _cycle(), Random(2)
    prompt: list[int] = []
    for start in range(0, _CYCLE, _SPAN):
        prompt += cycle[start : start + _SHOWN] + [draw.randrange(1000, 2000) for _ in range(8)]
    return [*prompt, cycle[-1]]


def _cycle() -> list[int]:
    return Random(1).sample(range(2000, 8000), _CYCLE)


def _in_turns(
    folder: Path, prompts: list[list[int]], params: Callable[[bool], SamplingParams], rounds: int
) -> dict[bool, list[float]]:
    """Seconds of answering all prompts, by whether the feature is on; both take turns after a round to warm up."""

    async def run() -> dict[bool, list[float]]:
        from sagellm_core import LLMEngine, LLMEngineConfig

        engine = LLMEngine(LLMEngineConfig(model_path=str(folder), backend_type="cpu", enable_prefix_cache=False))
        await engine.start()
        try:
            return await _alternate(engine, prompts, params, rounds)
        finally:
            await engine.stop()

    coroutine: Coroutine[Any, Any, dict[bool, list[float]]] = run()
    return asyncio.run(coroutine)


async def _alternate(
    engine: LLMEngine, prompts: list[list[int]], params: Callable[[bool], SamplingParams], rounds: int
) -> dict[bool, list[float]]:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds + 1):
        for feature in (True, False):
            chosen = params(feature)
            begun = time.perf_counter()
            answers = await asyncio.gather(*(engine.generate(each, sampling_params=chosen) for each in prompts))
            if number:
                seconds[feature].append(time.perf_counter() - begun)
            if any(len(each.output_tokens) != chosen.max_tokens for each in answers):
                raise RuntimeError("an answer ended early: the two sides did not do the same work")
    return seconds


if __name__ == "__main__":
    for finding in measure():
        print(finding.row())
