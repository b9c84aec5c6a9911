"""One device: loads the model, sizes the cache, runs steps."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from sagellm_core.backends import BackendConfig, create_backend
from sagellm_core.backends.base import warn_of_device_ids
from sagellm_core.comm import ALONE, Place
from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.grammar import grammar_compiler
from sagellm_core.engine_core.plan import BatchType, NewSequence, SchedulerOutput, StepOutput
from sagellm_core.executor.base import NOT_LOADED, WorkerInfo
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.load import load_model
from sagellm_core.models.lora import adapters_of
from sagellm_core.models.shard import Shard
from sagellm_core.models.weights import WeightReader
from sagellm_core.worker.draft import load_draft
from sagellm_core.worker.memory import check_room, told_when_out
from sagellm_core.worker.model_runner import Known, ModelRunner
from sagellm_protocol.sampling import SamplingParams

# One token into slot 0: the libraries under torch set themselves up now, not in the first user's request.
_WARM_UP = SchedulerOutput(
    step=0,
    batch_type=BatchType.PREFILL,
    seq_ids=["warm-up"],
    token_ids=[0],
    positions=[0],
    slot_mapping=[0],
    query_lens=[1],
    context_lens=[1],
    block_tables=[[0]],
    samples=[True],
    new=[NewSequence("warm-up", [0], SamplingParams())],
)

_BYTES = {"int8": 1.0, "fp8": 1.0, "int4": 0.5}


class Worker:
    """Must be made and used on one thread. `place` says which part of the model it holds, and with whom."""

    def __init__(
        self, config: LLMEngineConfig, model: ModelConfig, folder: Path, max_model_len: int, place: Place = ALONE
    ) -> None:
        self.place = place
        self.config = config
        self.model = model
        self.folder = folder
        self.max_model_len = max_model_len
        self.shard = Shard(place.group, place.stage.index, place.stage.count)
        self.info = NOT_LOADED
        self._runner: ModelRunner | None = None
        self._asleep: Known | None = None

    def load(self) -> WorkerInfo:
        """Load the weights and lay out the cache. Raises ModelLoadError, EngineError (memory that is not there)."""
        with told_when_out("while the model was loaded"):
            self._load()
        return self.info

    def sleep(self) -> None:
        """Give weights and cache back; what is known of sequences stays. Nothing happens in a sleep."""
        if self._runner is None:
            return
        self._asleep, self._runner = self._runner.known, None
        _let_go()

    def wake(self) -> None:
        """Weights from the folder again, and a cache of the same size with undefined content.

        The system keeps a file's pages in memory while it has room, so that little is read from disk. Raises what
        `load` raises; the worker then sleeps on.
        """
        if self._asleep is None:
            return
        with told_when_out("while the model was woken"):
            self._load(self._asleep, self.info.num_blocks)
        self._asleep = None

    def _load(self, known: Known | None = None, num_blocks: int | None = None) -> None:
        config, model = self.config, self.model
        adapters = adapters_of(config.lora_adapters, config.max_lora_rank, model)
        backend = create_backend(
            BackendConfig(config.backend_type, config.device, config.device_ids, config.quantization)
        )
        if self.place.alone and known is None:  # ranks are given theirs by who starts them
            warn_of_device_ids(backend.describe()["kind"], config.device_ids)
        backend.prepare_thread(model, config.num_threads)
        dtype = backend.dtype(config.dtype, model)
        check_room(model, _BYTES.get(config.quantization or "", dtype.itemsize), backend, self.shard)
        with WeightReader(self.folder) as reader:
            network = load_model(model, reader, dtype, backend, self.max_model_len, self.shard, adapters=adapters)
        draft = load_draft(config, self.folder, backend, self.max_model_len) if self.place.answers else None
        per_token = _kv_bytes(network) + (_kv_bytes(draft) if draft is not None else 0)
        if num_blocks is None:
            num_blocks = config.kv_cache_num_blocks or self._default_blocks(backend.kv_budget_bytes(), per_token)
            num_blocks = self.place.least(num_blocks)
        grammars = grammar_compiler(self.folder, model.vocab_size) if known is None else None
        size = config.kv_cache_block_size
        runner = ModelRunner(network, backend, num_blocks, size, self.place, draft, grammars, known)
        runner.run(_WARM_UP)
        if not adapters:
            runner.capture(config.max_batch_size, self.max_model_len)
        self._runner = runner
        self.info = WorkerInfo(
            num_blocks=num_blocks,
            token_budget=max(backend.token_budget, config.max_batch_size),
            bytes_per_token=per_token,
            dtype=str(dtype).removeprefix("torch."),
            device=backend.describe(),
            kv_layout=runner.blocks.layout,
            block_bytes=runner.blocks.block_bytes,
        )

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        assert self._runner is not None, "load() comes first"
        return self._runner.run(plan)

    def read_blocks(self, blocks: list[int]) -> bytearray:
        """The content of cache blocks of this rank, see `worker.blocks`."""
        assert self._runner is not None, "load() comes first"
        return self._runner.blocks.read(blocks)

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        assert self._runner is not None, "load() comes first"
        self._runner.blocks.write(blocks, content)

    def unload(self) -> None:
        """Drop weights and cache."""
        self._runner = self._asleep = None

    def _default_blocks(self, budget_bytes: int, per_token: int) -> int:
        """Room for a full batch of the longest sequences, within the memory there is; at least one such sequence."""
        size = self.config.kv_cache_block_size
        longest = -(-self.max_model_len // size)
        return max(longest, min(longest * self.config.max_batch_size, budget_bytes // (per_token * size)))


def _let_go() -> None:
    """Have memory that nobody uses any more back in the system's hands, not kept for later tensors."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _kv_bytes(model: CausalLM) -> int:
    """Bytes of keys and values that this model keeps of a token on this rank."""
    return 2 * model.num_layers * model.num_kv_heads * model.config.head_dim * model.dtype.itemsize
