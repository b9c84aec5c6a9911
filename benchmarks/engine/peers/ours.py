"""This repository's engine through its public API, detokenisation and all."""

from __future__ import annotations

import asyncio

import wire

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol.sampling import SamplingParams


class Ours:
    """`LLMEngine` on its own event loop. Prefix caching is off, as for everybody; threads are its own choice."""

    def load(self, model: str, precision: str, threads: int) -> str:
        self.loop = asyncio.new_event_loop()
        settings = {
            "model_path": model,
            "backend_type": "cpu",
            "dtype": {"bf16": "bfloat16", "fp32": "float32"}.get(precision, "auto"),
            "quantization": precision if precision.startswith("int") else None,
            "enable_prefix_cache": False,
            "max_batch_size": 16,
            "max_model_len": 1024,
        }
        self.engine = LLMEngine(LLMEngineConfig.model_validate(settings))
        self.loop.run_until_complete(self.engine.start())
        return str(self.engine.get_info()["dtype"])

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        return self.loop.run_until_complete(self._all(prompts, max_tokens))

    async def _all(self, prompts: list[list[int]], max_tokens: int) -> int:
        greedy = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
        answers = await asyncio.gather(*(self.engine.generate(ids, sampling_params=greedy) for ids in prompts))
        return sum(len(answer.output_tokens) for answer in answers)


if __name__ == "__main__":
    wire.serve(Ours())
