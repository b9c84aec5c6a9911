"""A decoder whose step is one call of the kernels."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable
from ctypes import CDLL, byref, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sagellm_core.layers.attention import PagedAttention
from sagellm_core.layers.cpu.attention import StepArrays
from sagellm_core.layers.cpu.library import TYPES, Layer, Matrix, Shape, Wanted, check
from sagellm_core.layers.cpu.linear import PackedLinear
from sagellm_core.layers.cpu.quantised import QuantisedLinear
from sagellm_core.layers.linear import Linear
from sagellm_core.models.base import CausalLM
from sagellm_core.models.decoder import Decoder, DecoderLayer, Embedding

_PANEL = 32
_MOST_HEADS_IN_A_GROUP = 256


class FusedDecoder:
    """A `Decoder` in the kernels: activations float32, products in the type of the weights.

    The embedding of a tied head is read from the head's packed matrix: there is no second copy.
    """

    def __init__(self, model: Decoder, library: CDLL, threads: int) -> None:
        self.config = model.config
        self.dtype = model.dtype
        self._library = library
        self._model = model
        self._kept: list[object] = []
        layers = (Layer * len(model.layers))(*(self._layer(layer) for layer in model.layers))
        shape = self._shape(model, threads)
        self._handle = c_void_p(library.sage_decoder_new(byref(shape), layers))
        weakref.finalize(self, library.sage_decoder_free, self._handle)
        self.num_layers = len(model.layers)
        self.num_kv_heads = model.num_kv_heads
        self._caches: tuple[list[Tensor], Any] = ([], None)

    def forward(
        self, inputs: Tensor, positions: Tensor, caches: list[Tensor], attention: PagedAttention, meta: StepArrays
    ) -> Tensor:
        """Hidden states (tokens, hidden) in the model's type; float32 inside. `positions` are those of `meta`."""
        if self._rows() is None:
            inputs = self._model.embedded(inputs, positions)
        out = torch.empty((inputs.shape[0], self.config.hidden_size), dtype=self.dtype)
        meta.step.num_blocks = caches[0].shape[1]
        status = self._library.sage_decoder_forward(
            self._handle, byref(meta.step), inputs.data_ptr(), out.data_ptr(), self._pointers(caches)
        )
        check(status)
        return out

    @property
    def decodes(self) -> bool:
        """Whether logits come out here."""
        return isinstance(self._model.head, PackedLinear)

    def decode(
        self,
        ids: array[int],
        caches: list[Tensor],
        meta: StepArrays,
        hidden: Tensor,
        rows: array[int],
        logits: Tensor,
        allowed: array[int] | None = None,
    ) -> list[int]:
        """A step into `hidden` (tokens, hidden), and of these `rows` of it the logits (rows, vocabulary), float32.

        Returns the likeliest token of each of the rows, -1 where none has a finite logit. `allowed`: for each 0, or the
        address of a bit a token; its likeliest token is one of those.
        """
        inputs, embedded = ids.buffer_info()[0], None
        if self._rows() is None:
            embedded = self._model.embedded(torch.tensor(ids), torch.tensor(meta.arrays[0])).contiguous()
            inputs = embedded.data_ptr()
        likeliest = array("q", bytes(8 * len(rows)))
        wanted = Wanted(
            len(rows),
            rows.buffer_info()[0],
            logits.data_ptr(),
            likeliest.buffer_info()[0],
            None if allowed is None else allowed.buffer_info()[0],
        )
        meta.step.num_blocks = caches[0].shape[1]
        status = self._library.sage_decoder_decode(
            self._handle,
            byref(meta.step),
            inputs,
            hidden.data_ptr(),
            self._pointers(caches),
            byref(wanted),
        )
        check(status)
        return likeliest.tolist()

    def _rows(self) -> PackedLinear | None:
        """The packed matrix that the embedding is read from."""
        embed = self._model.embed
        head = embed.head if isinstance(embed, PackedEmbedding) else None
        return head if isinstance(head, PackedLinear) else None

    def _pointers(self, caches: list[Tensor]) -> Any:
        """An array of the caches' addresses, made once."""
        if self._caches[0] is not caches:
            self._caches = (caches, (c_void_p * len(caches))(*(cache.data_ptr() for cache in caches)))
        return self._caches[1]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary), float32."""
        head = self._model.head
        return head.product(hidden, torch.float32) if isinstance(head, PackedLinear) else self._model.logits(hidden)

    def _float(self, weight: Tensor) -> int:
        kept = weight.float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _layer(self, layer: DecoderLayer) -> Layer:
        matrices = [each.matrix for each in packed(layer)]
        norms = layer.head_norms
        return Layer(
            *matrices,
            self._float(layer.attention_norm.weight),
            self._float(layer.mlp_norm.weight),
            None if norms is None else self._float(norms.query),
            None if norms is None else self._float(norms.key),
            layer.spec.window or 0,
        )

    def _shape(self, model: Decoder, threads: int) -> Shape:
        assert model.rope is not None
        first = model.layers[0]
        rows = self._rows()
        cos, sin = (self._float(table) for table in model.rope)
        return Shape(
            len(model.layers),
            model.config.hidden_size,
            packed(first)[3].matrix.inputs,
            first.spec.num_heads,
            first.spec.num_kv_heads,
            first.spec.head_dim,
            model.config.norm_eps,
            first.spec.scale,
            TYPES[model.dtype],
            threads,
            cos,
            sin,
            None if model.norm is None else self._float(model.norm.weight),
            Matrix() if rows is None else rows.matrix,
            model.head.matrix if isinstance(model.head, PackedLinear) else Matrix(),
        )


@dataclass(slots=True)
class PackedEmbedding:
    """The embedding of a tied head, read from the head's packed matrix."""

    head: PackedLinear | QuantisedLinear

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids (tokens,) to vectors (tokens, hidden) in the model's type."""
        return self.head.rows(ids).to(self.head.dtype)


def tie(model: CausalLM, pack: Callable[[Tensor], PackedLinear | QuantisedLinear]) -> None:
    """Turn a head that is the embedding too into one packed matrix, which the embedding is read from."""
    if not isinstance(model, Decoder) or not isinstance(model.head, Linear) or model.shard.group.size != 1:
        return
    if isinstance(model.embed, Embedding):
        head = pack(model.embed.table)
        model.embed, model.head = PackedEmbedding(head), head


def fuse(model: CausalLM, library: CDLL, threads: int) -> CausalLM:
    """The same model in the kernels where they have all that it does, else as it is."""
    if isinstance(model, Decoder) and _fits(model):
        return FusedDecoder(model, library, threads)
    return model


def packed(layer: DecoderLayer) -> list[PackedLinear]:
    """The matrices of a layer that are in the kernels' layout, in the order of the C structure."""
    each = (layer.qkv, layer.output, layer.gate_up, layer.down)
    return [matrix for matrix in each if isinstance(matrix, PackedLinear)]


def _fits(model: Decoder) -> bool:
    config = model.config
    first = model.layers[0].spec
    return (
        model.shard.group.size == 1
        and model.dtype in TYPES
        and model.rope is not None
        and config.gated
        and config.activation in ("silu", "swish")
        and not config.layer_norm
        and model.learned is None
        and all(len(packed(layer)) == 4 and layer.spec.scale == first.scale for layer in model.layers)
        and config.intermediate_size % _PANEL == 0
        and first.num_heads // first.num_kv_heads <= _MOST_HEADS_IN_A_GROUP
        and first.head_dim % 2 == 0
    )
