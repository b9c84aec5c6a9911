"""Greedy generation with the built-in model: our engine against transformers' ``generate`` (SPEC E4).

Both sides get the same weights, the same prompts and give the same number of tokens, in float32 on the same threads.
"""

import asyncio
from typing import Any

from benchmarks.measure import Comparison, compare

TOKENS = 64
WIDTHS = (1, 8)
PROMPT = list(range(300, 348))


def prompts(width: int) -> list[list[int]]:
    """``width`` prompts of 48 ids that differ, so that no prefix is shared."""
    return [[(token + 7 * row) % 1500 + 300 for token in PROMPT] for row in range(width)]


def run() -> list[Comparison]:
    """One stream and eight."""
    import torch
    from transformers import AutoModelForCausalLM

    from sagellm_core import LLMEngine, LLMEngineConfig
    from sagellm_core.builtin import path
    from sagellm_protocol.sampling import SamplingParams

    loop = asyncio.new_event_loop()
    engine = LLMEngine(
        LLMEngineConfig(model_path=str(path()), backend_type="cpu", dtype="float32", enable_prefix_cache=False)
    )
    loop.run_until_complete(engine.start())
    model: Any = AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32)
    greedy = SamplingParams(max_tokens=TOKENS, ignore_eos=True)

    def ours(width: int) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(engine.generate(prompt, sampling_params=greedy) for prompt in prompts(width)))

        loop.run_until_complete(all_of_them())

    def peer(width: int) -> None:
        ids = torch.tensor(prompts(width))
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
                do_sample=False,
                pad_token_id=0,
            )

    try:
        return [
            compare(
                f"engine: built-in model, greedy, {width} at once",
                lambda width=width: ours(width),  # type: ignore[misc]
                lambda width=width: peer(width),  # type: ignore[misc]
                peer_name="transformers generate, batched",
                unit="tokens",
                units=TOKENS * width,
            )
            for width in WIDTHS
        ]
    finally:
        loop.run_until_complete(engine.stop())
        loop.close()
