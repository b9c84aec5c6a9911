"""transformers: `generate` on a padded batch, or its continuous batching (precision "…-continuous")."""

from __future__ import annotations

from typing import Any

import torch
import wire
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

# Room for 16 sequences of 576 tokens: left to itself it takes most of the memory and spends half a minute on it.
_CACHE = ContinuousBatchingConfig(page_size=256, num_blocks=96, max_batch_tokens=512)


class Transformers:
    """`AutoModelForCausalLM`, as its documentation calls it."""

    def load(self, model: str, precision: str, threads: int) -> str:
        torch.set_num_threads(threads)
        dtype, _, mode = precision.partition("-")
        self.continuous = mode == "continuous"
        options: dict[str, Any] = {"attn_implementation": "sdpa"} if self.continuous else {}
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=kind, **options)
        return str(self.model.dtype).removeprefix("torch.")

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        with torch.inference_mode():
            return self._continuous(prompts, max_tokens) if self.continuous else self._padded(prompts, max_tokens)

    def _padded(self, prompts: list[list[int]], max_tokens: int) -> int:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        out = self.model.generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=max_tokens, max_new_tokens=max_tokens,
            pad_token_id=0,
        )  # fmt: skip
        return len(prompts) * (out.shape[1] - width)

    def _continuous(self, prompts: list[list[int]], max_tokens: int) -> int:
        settings = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        out = self.model.generate_batch(prompts, settings, _CACHE, warmup=False)
        return sum(len(each.generated_tokens) for each in out.values())


if __name__ == "__main__":
    wire.serve(Transformers())
