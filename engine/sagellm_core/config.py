"""Configuration of an engine, and of a demo run (YAML or JSON), checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sage.common.errors import ConfigError
from sagellm_core.config_errors import refusal
from sagellm_protocol.sampling import SamplingParams

_EXAMPLE = "Compare examples/config_cpu.yaml, which has the fields there are"


class LLMEngineConfig(BaseModel):
    """What an `LLMEngine` runs and within which limits.

    `model_path` is a folder, a Hugging Face name that is in the local cache, or "sage-builtin". `max_model_len` is cut
    to the model's own context. `max_new_tokens` is what a request gets that does not say `max_tokens`.
    `kv_cache_num_blocks=None` sizes the cache from `max_batch_size`, `max_model_len` and the memory there is.
    `max_num_batched_tokens` is the token budget of a step, `max_waiting_requests` the length of the queue before
    requests are refused with `resource_exhausted`. `sampling` holds defaults that win over the model's
    generation_config.json and lose against the request. `quantization` is of the weights. `num_speculative_tokens`
    above 0 lets every greedy or sampling request speculate, with the draft model `speculative_model` or, without one,
    by looking up n-grams of its own text. `lora_adapters` are folders by name.
    `task_type="embed"` serves `embed` alone. With `decode_nodes` or `hybrid_nodes` above 0 the engine runs on that many
    processes, prompts on `prefill_nodes` others: see `DistributedRuntime`. `engine_id` stands in every event;
    `metadata` is the caller's own.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_path: str = Field(min_length=1)
    backend_type: str = "auto"
    comm_type: str = "auto"
    max_batch_size: int = Field(default=32, ge=1, le=4096)
    max_model_len: int = Field(default=4096, ge=2)
    max_new_tokens: int = Field(default=128, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    prefill_nodes: int = Field(default=0, ge=0)
    decode_nodes: int = Field(default=0, ge=0)
    hybrid_nodes: int = Field(default=0, ge=0)
    trust_remote_code: Literal[False] = False
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str | None = None
    device_ids: list[int] = Field(default_factory=list)
    kv_cache_block_size: int = Field(default=16, ge=1, le=256)
    kv_cache_num_blocks: int | None = Field(default=None, ge=1)
    enable_prefix_cache: bool = True
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    max_waiting_requests: int = Field(default=256, ge=1)
    num_threads: int | None = Field(default=None, ge=1, le=1024)
    sampling: SamplingParams | None = None
    served_model_name: str | None = None
    task_type: Literal["generate", "embed"] = "generate"
    pooling_strategy: Literal["mean", "cls", "last"] = "mean"
    quantization: Literal["int8", "int4", "fp8"] | None = None
    speculative_model: str | None = None
    num_speculative_tokens: int = Field(default=0, ge=0, le=16)
    lora_adapters: dict[str, str] = Field(default_factory=dict)
    max_lora_rank: int = Field(default=64, ge=1, le=512)
    engine_id: str = "engine-0"
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _budget_covers_batch(self) -> Self:
        if self.max_num_batched_tokens is not None and self.max_num_batched_tokens < self.max_batch_size:
            raise ValueError("max_num_batched_tokens must be at least max_batch_size (one token a running sequence)")
        if self.prefill_nodes and not self.decode_nodes + self.hybrid_nodes:
            raise ValueError("prefill_nodes need nodes that decode: decode_nodes or hybrid_nodes")
        return self


class BackendSection(BaseModel):
    """`backend:` of a configuration file: which kind of device."""

    model_config = ConfigDict(extra="forbid")

    kind: str = "auto"
    device: str | None = None
    device_ids: list[int] = Field(default_factory=list)


class EngineSection(BaseModel):
    """`engine:` of a configuration file: which model, within which limits.

    `model_path` wins over `model`. There is one `kind` of engine, "llm": nothing is chosen by it.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    kind: str = "llm"
    model: str = "sage-builtin"
    model_path: str | None = None
    max_batch_size: int = Field(default=32, ge=1)
    max_input_tokens: int = Field(default=3968, ge=1)
    max_output_tokens: int = Field(default=128, ge=1)
    device: str | None = None


class WorkloadSection(BaseModel):
    """`workload:` of a configuration file: which load a demo run puts on the engine."""

    model_config = ConfigDict(extra="forbid")

    segments: list[Literal["short", "long", "stress"]] = ["short"]
    concurrency: int = Field(default=1, ge=1)
    request_timeout_s: float = Field(default=60, gt=0)
    warmup_requests: int = Field(default=0, ge=0)
    max_requests: int | None = Field(default=None, ge=1)
    kv_budget_tokens: int | None = Field(default=None, ge=1)


class OutputSection(BaseModel):
    """`output:` of a configuration file: where results go."""

    model_config = ConfigDict(extra="forbid")

    metrics_path: str = "metrics.json"
    report_path: str | None = None
    log_path: str | None = None
    log_level: str = "INFO"


class EngineFileConfig(BaseModel):
    """A whole configuration file, as `load_config` returns it."""

    model_config = ConfigDict(extra="forbid")

    backend: BackendSection = Field(default_factory=BackendSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    workload: WorkloadSection = Field(default_factory=WorkloadSection)
    output: OutputSection = Field(default_factory=OutputSection)

    def engine_config(self) -> LLMEngineConfig:
        """The engine that this file asks for. Raises ConfigError that names the field."""
        engine = self.engine
        settings = {
            "model_path": engine.model_path or engine.model,
            "backend_type": self.backend.kind,
            "device": engine.device or self.backend.device,
            "device_ids": self.backend.device_ids,
            "max_batch_size": engine.max_batch_size,
            "max_model_len": engine.max_input_tokens + engine.max_output_tokens,
            "max_new_tokens": engine.max_output_tokens,
        }
        return read_engine_config(settings)


def read_engine_config(fields: Any, source: str = "the engine's configuration", text: str = "") -> LLMEngineConfig:
    """An engine's configuration from plain values, such as those of a YAML file.

    Raises ConfigError that names the field, its value, the nearest known name and, with the file's `text`, the line.
    """
    try:
        return LLMEngineConfig.model_validate(fields)
    except ValidationError as error:
        raise refusal(error, LLMEngineConfig, source, text) from error


def load_config(path: str | Path) -> EngineFileConfig:
    """Read a YAML or JSON configuration file.

    Raises ConfigError that names the file, the line, the field, its value, and the nearest name that there is.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigError(f"Cannot read the configuration {file}", cause=cause, hint=_EXAMPLE) from error
    try:
        data = _parse(text, file.suffix)
    except ValueError as error:
        raise ConfigError(f"{file} is not valid {file.suffix.lstrip('.') or 'YAML'}", cause=str(error)) from error
    try:
        return EngineFileConfig.model_validate({} if data is None else data)
    except ValidationError as error:
        raise refusal(error, EngineFileConfig, str(file), text, hint=_EXAMPLE) from error


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
