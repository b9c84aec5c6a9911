"""Six ways to choose the next token, side by side on one engine: `python examples/decoding_strategies_demo.py`.

`--model` takes a folder or a name in the local Hugging Face cache; without it the built-in model answers.
"""

import argparse
import asyncio
import sys

from sage.common.errors import SageError
from sage.common.listening import report
from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

PROMPT = "SAGE is"


async def greedy(engine: LLMEngine) -> None:
    """Scene 1: always the likeliest token; the same every time."""
    params = SamplingParams(strategy=DecodingStrategy.GREEDY, max_tokens=24)
    first = await engine.generate(PROMPT, sampling_params=params)
    second = await engine.generate(PROMPT, sampling_params=params)
    print(repr(first.output_text))
    print("again the same:", first.output_tokens == second.output_tokens)


async def sampling(engine: LLMEngine) -> None:
    """Scene 2: drawn at random; a seed makes the draws come again, whatever else runs."""
    for temperature in (0.5, 1.0, 1.5):
        params = SamplingParams(strategy=DecodingStrategy.SAMPLING, temperature=temperature, seed=7, max_tokens=24)
        both = await asyncio.gather(*(engine.generate(PROMPT, sampling_params=params) for _ in range(2)))
        print(f"temperature {temperature}: {both[0].output_text!r}")
        print("again the same:", both[0].output_tokens == both[1].output_tokens)


async def filters(engine: LLMEngine) -> None:
    """Scene 3: draws among the likelier tokens only, and less of what was said already."""
    for name, value in {"top_k": 5, "top_p": 0.8, "min_p": 0.2, "repetition_penalty": 1.3}.items():
        fields = {name: value, "temperature": 1.0, "seed": 7, "max_tokens": 24}
        params = SamplingParams.model_validate(fields)
        print(f"{name} {value}: {(await engine.generate(PROMPT, sampling_params=params)).output_text!r}")


async def beams(engine: LLMEngine) -> None:
    """Scene 4: several beginnings grow side by side, the likeliest whole is kept."""
    params = SamplingParams(strategy=DecodingStrategy.BEAM_SEARCH, num_beams=4, n=2, max_tokens=16)
    response = await engine.generate(PROMPT, sampling_params=params)
    for choice in response.choices:
        print(f"score {choice.score:.3f}: {choice.output_text!r}")


async def contrastive(engine: LLMEngine) -> None:
    """Scene 5: of a few likely tokens the one that repeats the context least."""
    params = SamplingParams(strategy=DecodingStrategy.CONTRASTIVE, penalty_alpha=0.6, top_k=4, max_tokens=24)
    print(repr((await engine.generate(PROMPT, sampling_params=params)).output_text))


async def speculative(engine: LLMEngine) -> None:
    """Scene 6: several tokens a step, guessed from the text so far and checked: faster, and the same as greedy."""
    plain = await engine.generate(PROMPT, max_tokens=48)
    params = SamplingParams(strategy=DecodingStrategy.SPECULATIVE, n_speculative_tokens=4, max_tokens=48)
    guessed = await engine.generate(PROMPT, sampling_params=params)
    print("the same as greedy:", guessed.output_tokens == plain.output_tokens)
    print(f"guesses that were right: {100 * guessed.metrics.spec_accept_rate:.0f} %")


SCENES = (greedy, sampling, filters, beams, contrastive, speculative)


async def main(model: str) -> None:
    """All scenes in a row."""
    engine = LLMEngine(LLMEngineConfig(model_path=model))
    await engine.start()
    try:
        for number, scene in enumerate(SCENES, 1):
            print(f"\n{number}. {scene.__name__}: {(scene.__doc__ or '').split(': ', 1)[1]}")
            await scene(engine)
    finally:
        await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Six decoding strategies side by side.")
    parser.add_argument("--model", default="sage-builtin")
    try:
        asyncio.run(main(parser.parse_args().model))
    except SageError as error:  # no such model, say: one message, and what to do next
        report(error)
        sys.exit(2)
