"""What a step costs beside the model: scheduling, bookkeeping, and what those who asked are told.

256 sequences run, with the tokens that a model would give made up. The sides that the bounds compare with are a clock
(5 microseconds a sequence and step) and a step of the 0.5B model in the same process.
"""

from __future__ import annotations

import random
import statistics
from functools import partial
from time import perf_counter, thread_time
from typing import NamedTuple

from benchmarks.engine.models import MEDIUM, folder_of
from benchmarks.environments import cache_folder
from benchmarks.findings import Finding
from sagellm_core.engine_core.answers import Answers
from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import Submission
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.scheduler import Scheduler
from sagellm_core.text.output import OutputText
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.sampling import SamplingParams

SEQUENCES = 256
_STEPS = 100
_BLOCK = 16
_ENDLESS = SamplingParams(max_tokens=4096, ignore_eos=True)


class Parts(NamedTuple):
    """Seconds of CPU of one step: making the plan, taking in its output, telling those who asked."""

    schedule: float
    update: float
    news: float


def measure() -> list[Finding]:
    """Both bounds."""
    bare, written = _median(None), _median(_tokenizer())
    step = _model_step()
    micro = [1e6 * part / SEQUENCES for part in bare]
    text = 1e6 * (written.news - bare.news) / SEQUENCES
    parts = (
        f"schedule {micro[0]:.2f} + update {micro[1]:.2f} + updates {micro[2]:.2f} µs (their text: {text:.2f} µs more)"
    )
    share = sum(written) / step
    return [
        Finding(f"scheduler and bookkeeping, {SEQUENCES} running: µs a sequence and step", parts, sum(micro), 5.0),
        Finding(f"the same, text included / a step of 0.5B, {SEQUENCES} running",
                f"{1e3 * sum(written):.2f} / {1e3 * step:,.0f} ms", share, 0.03),
    ]  # fmt: skip


class Load:
    """256 sequences that decode, with prompts of 32 to 512 tokens."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        blocks = BlockManager(SEQUENCES * 48, _BLOCK)
        self.scheduler = Scheduler(SchedulerConfig(SEQUENCES, 2048, 4096), blocks)
        self.answers = Answers(self.scheduler)
        self._draw = random.Random(3)
        for number in range(SEQUENCES):
            prompt = [self._draw.randrange(300, 1500) for _ in range(self._draw.randint(32, 512))]
            writer = partial(OutputText, tokenizer, prompt, _ENDLESS) if tokenizer is not None else None
            self.answers.enter(Submission(f"request-{number}", prompt, _ENDLESS, writer))
        while len(self.scheduler.running) < SEQUENCES or not all(each.is_decoding for each in self.scheduler.running):
            self.step()

    def step(self) -> Parts:
        """One step of the loop with a model that takes no time."""
        begun = thread_time()
        plan = self.scheduler.schedule()
        assert plan is not None
        self.answers.begin(plan, begun)
        planned = thread_time()
        output = self._sampled(plan)
        given = thread_time()
        progress = self.scheduler.update(output)
        updated = thread_time()
        self.answers.news(progress, output, updated)
        return Parts(planned - begun, updated - given, thread_time() - updated)

    def _sampled(self, plan: SchedulerOutput) -> StepOutput:
        wanted = [seq_id for seq_id, samples in zip(plan.seq_ids, plan.samples, strict=True) if samples]
        return StepOutput(plan.step, {seq_id: [SampledToken(self._draw.randrange(300, 1500))] for seq_id in wanted})


def _median(tokenizer: Tokenizer | None) -> Parts:
    load = Load(tokenizer)
    samples = [load.step() for _ in range(_STEPS)]
    return Parts(*(statistics.median(part) for part in zip(*samples, strict=True)))


def _tokenizer() -> Tokenizer:
    from sagellm_core.builtin import path

    return Tokenizer(path())


def _model_step() -> float:
    """Seconds of a step of the 0.5B model in which 256 sequences decode, the median of three."""
    from sagellm_core.config import LLMEngineConfig
    from sagellm_core.models.bundle import open_bundle

    folder = folder_of(MEDIUM, cache_folder())
    config = LLMEngineConfig(model_path=str(folder), backend_type="cpu", max_batch_size=SEQUENCES, max_model_len=64)
    executor = open_bundle(config).new_executor()
    info = executor.start()
    try:
        limits = SchedulerConfig(SEQUENCES, max(info.token_budget, SEQUENCES), 64)
        scheduler = Scheduler(limits, BlockManager(info.num_blocks, config.kv_cache_block_size))
        for number in range(SEQUENCES):
            scheduler.add(f"request-{number}", [number % 100 + 1, 7], _ENDLESS)
        seconds: list[float] = []
        while len(seconds) < 3:
            plan = scheduler.schedule()
            assert plan is not None
            begun = perf_counter()
            output = executor.execute(plan)
            if plan.query_lens == [1] * SEQUENCES:
                seconds.append(perf_counter() - begun)
            scheduler.update(output)
        return statistics.median(seconds)
    finally:
        executor.stop()
