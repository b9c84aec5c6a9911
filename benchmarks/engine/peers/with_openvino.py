"""OpenVINO GenAI: its continuous batching pipeline, with ids in and ids out."""

from __future__ import annotations

import numpy
import openvino
import openvino_genai as genai
import wire


class OpenVino:
    """Prefix caching is off, as for everybody; the compute type is OpenVINO's own choice (bfloat16 where it has it)."""

    def load(self, model: str, precision: str, threads: int) -> str:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs, scheduler.enable_prefix_caching = 1, 16, False
        scheduler.max_num_batched_tokens = 512
        self.pipeline = genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )
        return precision

    def run(self, prompts: list[list[int]], max_tokens: int) -> int:
        settings = genai.GenerationConfig()
        settings.max_new_tokens, settings.ignore_eos, settings.do_sample = max_tokens, True, False
        ids = [openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt in prompts]
        results = self.pipeline.generate(ids, [settings] * len(prompts))
        return sum(len(result.m_generation_ids[0]) for result in results)


if __name__ == "__main__":
    wire.serve(OpenVino())
