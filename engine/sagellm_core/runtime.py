"""`DistributedRuntime`: an `LLMEngine` whose prompts are computed on some nodes and whose answers are on others.

    runtime = DistributedRuntime(LLMEngineConfig(model_path="sage-builtin"), PDLayout(prefill_nodes=1, decode_nodes=2))
    await runtime.start()
    response = await runtime.generate("Hello", max_tokens=20)
    await runtime.stop()

Everything that an engine does is done: streams, several answers, searches, grammars, cancellation. Neither this module
nor the process that uses it imports torch: models are in the nodes.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.loop import RequestLoop
from sagellm_core.errors import EngineError
from sagellm_core.llm_engine import LLMEngine
from sagellm_core.models.bundle import ModelBundle
from sagellm_core.nodes.link import NodeSpec
from sagellm_core.nodes.state import Role
from sagellm_core.pd_executor import PDSeparatedExecutor
from sagellm_protocol.errors import ErrorCode

__all__ = ["DistributedRuntime", "PDLayout", "RemoteNode"]


class RemoteNode(BaseModel):
    """A node that listens on another host (`python -m sagellm_core.nodes.node --listen HOST:PORT`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    address: str = Field(pattern=r"^[^:\s]+:\d+$")


class PDLayout(BaseModel):
    """Which nodes there are: so many child processes of each role, and nodes on other hosts.

    Prompts of `prefill_threshold_tokens` and more are computed on prefill nodes; shorter ones, where the transfer would
    cost more than it saves, whole on a node that decodes. `transport`: shared memory ("shm"), TCP, or what suits two
    nodes ("auto"). `host` is the address on which this host's nodes take blocks (remote nodes take them where the
    runtime reaches them); `token` has to be that of the remote nodes (SAGE_NODE_TOKEN there).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefill_nodes: int = Field(default=1, ge=0)
    decode_nodes: int = Field(default=1, ge=0)
    hybrid_nodes: int = Field(default=0, ge=0)
    remote: list[RemoteNode] = Field(default_factory=list)
    prefill_threshold_tokens: int = Field(default=64, ge=1)
    transport: Literal["auto", "shm", "tcp"] = "auto"
    host: str = "127.0.0.1"
    token: str | None = None

    @model_validator(mode="after")
    def _somebody_decodes(self) -> Self:
        if not any(spec.role is not Role.PREFILL for spec in self.specs()):
            raise ValueError("at least one node has to decode: decode_nodes or hybrid_nodes")
        return self

    def specs(self) -> list[NodeSpec]:
        """The nodes, each with a name of its own."""
        counts = {Role.PREFILL: self.prefill_nodes, Role.DECODE: self.decode_nodes, Role.HYBRID: self.hybrid_nodes}
        local = [NodeSpec(f"{role}-{index}", role) for role, count in counts.items() for index in range(count)]
        return local + [NodeSpec(f"{node.role}@{node.address}", node.role, node.address) for node in self.remote]


class DistributedRuntime(LLMEngine):
    """A running model on several nodes. Use it like an `LLMEngine`, from the event loop that called `start`.

    Without a layout, the numbers of nodes are those of the configuration; where it names none, one of each kind.
    """

    def __init__(self, config: LLMEngineConfig, layout: PDLayout | None = None) -> None:
        super().__init__(config)
        self.layout = layout or _layout_of(config)
        self._executor: PDSeparatedExecutor | None = None

    def _new_core(self, bundle: ModelBundle) -> RequestLoop:
        self._executor = PDSeparatedExecutor(
            self.config,
            self.layout.specs(),
            self._deliver,
            threshold_tokens=self.layout.prefill_threshold_tokens,
            transport=self.layout.transport,
            host=self.layout.host,
            token=self.layout.token,
        )
        return self._executor

    @property
    def executor(self) -> PDSeparatedExecutor:
        """The nodes and what goes on between them. Raises EngineError before `start`."""
        if self._core is None or self._executor is None:
            raise EngineError(ErrorCode.UNAVAILABLE, "the runtime is not running", hint="await runtime.start()")
        return self._executor

    def get_info(self) -> dict[str, Any]:
        nodes = self.executor.nodes if self._core is not None else []
        return super().get_info() | {"nodes": {node.name: {"role": str(node.role), "up": node.up} for node in nodes}}

    def get_metrics(self) -> dict[str, float]:
        """The engine's metrics, and what went between nodes: `kv_transfer_*`, `re_prefills_total`, `nodes_up`."""
        metrics = super().get_metrics()
        if self._core is None:
            return metrics
        moved = self.executor.router.transfers
        return metrics | {
            "kv_transfer_count": moved.transfers,
            "kv_transfer_blocks": moved.blocks,
            "kv_transfer_bytes": moved.bytes,
            "kv_transfer_ms": moved.ms,
            "kv_transfer_failures_total": moved.failures,
            "re_prefills_total": moved.re_prefills,
            "nodes_up": sum(node.up for node in self.executor.nodes),
        }


def _layout_of(config: LLMEngineConfig) -> PDLayout:
    if not config.decode_nodes + config.hybrid_nodes:
        return PDLayout()
    return PDLayout(
        prefill_nodes=config.prefill_nodes, decode_nodes=config.decode_nodes, hybrid_nodes=config.hybrid_nodes
    )
