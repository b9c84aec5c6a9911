"""CTranslate2: `generate_batch`, its only way to decode several prompts at once."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import wire


class CTranslate2:
    """Prompts are words of its vocabulary there. No word ends an answer: the minimum is the maximum."""

    def load(self, model: str, precision: str, threads: int) -> str:
        self.generator = ctranslate2.Generator(model, device="cpu", compute_type=precision, intra_threads=threads)
        self.words: list[str] = json.loads((Path(model) / "vocabulary.json").read_text(encoding="utf-8"))
        return self.generator.compute_type

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        results = self.generator.generate_batch(
            [[self.words[token] for token in prompt] for prompt in prompts],
            max_length=max_tokens,
            min_length=max_tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return sum(len(result.sequences_ids[0]) for result in results)


if __name__ == "__main__":
    wire.serve(CTranslate2())
