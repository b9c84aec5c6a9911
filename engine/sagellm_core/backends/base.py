"""What the engine asks of a kind of device, and how kinds are found.

A backend is a class named in the entry-point group `sagellm.backends`; a package outside this repository adds a
device by naming its own. Constructing one must not fail where `is_available()` says yes.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, ClassVar, Protocol

from sagellm_core.errors import EngineError, invalid, not_implemented
from sagellm_protocol.errors import ErrorCode

if TYPE_CHECKING:
    from array import array

    import torch

    from sagellm_core.engine_core.plan import SchedulerOutput
    from sagellm_core.layers.attention import PagedAttention
    from sagellm_core.layers.linear import LinearOp
    from sagellm_core.models.base import CausalLM
    from sagellm_core.models.config import ModelConfig

_LOG = logging.getLogger("sagellm_core")
# A head that is the embedding too shares its memory, unless a second copy in the faster order is small.
_COPY_SHARED_UP_TO = 32 << 20
GROUP = "sagellm.backends"
_OURS = {
    "ascend": "sagellm_core.backends.ascend:AscendBackend",
    "cpu": "sagellm_core.backends.cpu:CPUBackend",
    "cuda": "sagellm_core.backends.cuda:CUDABackend",
}


@dataclass(slots=True, frozen=True)
class BackendConfig:
    """Which device: `kind` is an entry-point name or "auto"; `device` a torch device string such as "cuda:1".

    `quantization`: the form that `linear` keeps matrices in, one of the backend's `quantizations`.
    """

    kind: str = "auto"
    device: str | None = None
    device_ids: list[int] = field(default_factory=list)
    quantization: str | None = None


class Backend(ABC):
    """One device. `preference` orders the kinds when the user leaves the choice ("auto"): higher first.

    `device_type` is what torch calls such devices ("cuda"); a `device` of another type is refused, "" lets all pass.
    `collectives` is the torch.distributed backend between such devices. `spare_blocks` are blocks that each layer's
    cache has past those that the scheduler knows, for what the device writes on behalf of nobody. `quantizations` are
    the forms of matrices that `linear` knows besides the model's own type.
    """

    kind: ClassVar[str]
    preference: ClassVar[int] = 0
    device_type: ClassVar[str] = ""
    collectives: ClassVar[str] = "gloo"
    spare_blocks: ClassVar[int] = 0
    quantizations: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: BackendConfig) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def is_available(cls) -> bool:
        """Whether this machine has such a device and the software for it."""

    @classmethod
    def missing(cls) -> str:
        """What this machine lacks where `is_available()` says no; for people."""
        return "no such device, or not the software for it"

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def token_budget(self) -> int:
        """Tokens a step that use the device well without making running requests wait long."""

    @abstractmethod
    def dtype(self, requested: str, model: ModelConfig) -> torch.dtype:
        """The type to compute in; `requested` is a torch name or "auto"."""

    def free_bytes(self) -> int | None:
        """Memory that weights may take now; None where the device does not say."""
        return None

    @abstractmethod
    def kv_budget_bytes(self) -> int:
        """Memory that the KV cache may take now, after the weights were loaded."""

    @abstractmethod
    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A zeroed tensor for one layer's keys and values."""

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        """Called once on the thread that will run the model; by default torch keeps the threads it has."""
        if num_threads is not None:
            import torch

            torch.set_num_threads(num_threads)

    def attention(self, model: ModelConfig, block_size: int) -> PagedAttention:
        """The attention that suits this device: the torch reference unless a backend knows better."""
        from sagellm_core.layers.attention import TorchPagedAttention

        return TorchPagedAttention(block_size, self.device)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, shared: bool = False) -> LinearOp:
        """The product with a matrix (outputs, inputs) that is on this device; the backend may keep it in another form.

        `shared`: the matrix is the embedding too, and stays in memory whatever is made of it.
        """
        from sagellm_core.layers.linear import Linear, laid_out

        return Linear(weight.t() if shared and weight.nbytes > _COPY_SHARED_UP_TO else laid_out(weight), bias)

    def specialise(self, model: CausalLM) -> CausalLM:
        """The same model in the form that this device runs fastest: fused, compiled, captured; by default as it is."""
        return model

    def capture(
        self, model: CausalLM, attention: PagedAttention, caches: list[torch.Tensor], max_batch: int, max_model_len: int
    ) -> StepCapture | None:
        """Decode steps of this model recorded for replay, for up to `max_batch` sequences; by default none.

        `attention` is what `attention()` gave. Called once, after a first step has run.
        """
        return None

    def describe(self) -> dict[str, object]:
        return {"kind": self.kind, "device": str(self.device)}


@dataclass(slots=True, frozen=True)
class CapturedStep:
    """What a replayed step left on the device; the next replay overwrites the tensors.

    `hidden` (tokens, hidden size); of the rows that were wanted `logits` (rows, vocabulary), and `greedy`: the token of
    the largest logit, -1 where that is no finite number, already on the host; of the allowed ones where the step was
    run with masks.
    """

    hidden: torch.Tensor
    logits: torch.Tensor
    greedy: list[int]


class StepCapture(Protocol):
    """Recorded steps: a replay costs one launch, whatever the model has of layers."""

    general: ClassVar[bool]
    """Whether `run` takes any step, and masks; else only steps of one token a sequence."""

    def run(self, plan: SchedulerOutput, rows: list[int], masks: array[int] | None = None) -> CapturedStep | None:
        """The step, if it is one of those recorded; None: run it plainly.

        `rows`: which of the step's tokens are to become logits, in ascending order. `masks`: for each of them the
        host's address of a bit a token, set where that may be the likeliest, or 0: any may.
        """
        ...


def attention_for(backend: Backend, model: ModelConfig, block_size: int) -> PagedAttention:
    """The backend's own attention, or the reference for models whose scores only that can change."""
    return (
        backend.attention(model, block_size) if model.plain_attention else Backend.attention(backend, model, block_size)
    )


@cache
def backend_names() -> dict[str, str]:
    """Known kinds and where their classes are ("module:Class"), ours and those of other packages."""
    return {**_OURS, **{point.name: point.value for point in entry_points(group=GROUP)}}


def check_kind(kind: str) -> None:
    """Raise EngineError that names the known kinds unless `kind` is one of them or "auto". Loads no backend."""
    names = backend_names()
    if kind != "auto" and kind not in names:
        raise invalid(f"no backend {kind!r}; known: {', '.join(sorted(names))}, auto", "backend_type")


def get_provider(kind: str) -> type[Backend]:
    """The class of a kind of backend. Raises EngineError that names the known kinds."""
    check_kind(kind)
    names = backend_names()
    from importlib import import_module

    module, _, name = names[kind].partition(":")
    provider = getattr(import_module(module), name)
    if not (isinstance(provider, type) and issubclass(provider, Backend)):
        raise invalid(f"the backend {kind!r} ({names[kind]}) is not a sagellm_core Backend", "backend_type")
    return provider


def create_backend(config: BackendConfig) -> Backend:
    """The device that a configuration asks for; "auto" takes the best that is there.

    Raises EngineError when there is none such, when `device` is of another kind, or when it does not have the
    quantization that is asked for.
    """
    provider = _provider_for(config)
    _check_device(provider, config)
    if config.quantization is not None and config.quantization not in provider.quantizations:
        known = ", ".join(sorted(provider.quantizations)) or "none"
        raise not_implemented(
            f"the backend {provider.kind!r} has no quantization {config.quantization!r}; it has: {known}",
            "quantization",
        )
    return provider(config)


def _check_device(provider: type[Backend], config: BackendConfig) -> None:
    """Raise EngineError where `device` is none of the provider's: it would be passed over."""
    wanted = (config.device or "").partition(":")[0]
    if wanted in ("", provider.device_type) or not provider.device_type:
        return
    owner = next((kind for kind in _OURS if get_provider(kind).device_type == wanted), None)
    cause = f"the backend is {provider.kind!r}, whose devices are called {provider.device_type!r}"
    if owner is not None and not get_provider(owner).is_available():
        cause += f"; {owner!r} is not available on this machine: {get_provider(owner).missing()}"
    hint = f"Leave `device` out, or say device: {provider.device_type}"
    if owner is not None:
        hint += f"; for {config.device} choose the backend {owner!r} on a machine that has one"
    raise EngineError(
        ErrorCode.INVALID_ARGUMENT, f"no device {config.device!r} here", param="device", cause=cause, hint=hint
    )


def warn_of_device_ids(kind: object, device_ids: list[int]) -> None:
    """Say in the log where `device_ids` choose nothing: processors have no numbers."""
    if kind == "cpu" and device_ids:
        _LOG.warning(
            "device_ids %s choose nothing: the model runs on the processor. Leave device_ids out, or choose a backend "
            "whose devices have numbers (backend_type: cuda or ascend)",
            device_ids,
        )


def _provider_for(config: BackendConfig) -> type[Backend]:
    if config.kind != "auto":
        provider = get_provider(config.kind)
        if not provider.is_available():
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                f"the backend {config.kind!r} is not available on this machine: {provider.missing()}",
                param="backend_type",
                hint="Use the CPU:  --backend cpu   (in Python: backend_type='cpu')",
            )
        return provider
    providers = sorted((get_provider(kind) for kind in backend_names()), key=lambda each: -each.preference)
    return next(provider for provider in providers if provider.is_available())
