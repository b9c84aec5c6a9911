"""Loading a decoder of an own family: each rank reads its part of each tensor, one tensor in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sagellm_core.backends.base import Backend
from sagellm_core.layers.attention import AttentionSpec, HeadNorms
from sagellm_core.layers.linear import ColumnParallel, LinearOp, RowParallel
from sagellm_core.layers.rope import rope_tables
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.decoder import Decoder, DecoderLayer, Embedding, Norm
from sagellm_core.models.families import FAMILIES, Names
from sagellm_core.models.shard import Shard
from sagellm_core.models.weights import Part, WeightReader


@dataclass(slots=True, frozen=True)
class OwnLoader:
    """Builds the part of a model that `shard` names. Every method raises ModelLoadError on missing or torn tensors."""

    config: ModelConfig
    reader: WeightReader
    dtype: torch.dtype
    backend: Backend
    shard: Shard
    max_position: int

    def load(self) -> Decoder:
        """The shard's part of the decoder, its matrices in the backend's form. Raises ModelLoadError on bad files."""
        config, shard, names = self.config, self.shard, self.names
        embed = self._embedding() if shard.is_first else None
        head = self._head(embed) if shard.is_last else None
        positions = None
        if names.positions and shard.is_first:
            shape = (config.max_position, config.hidden_size)
            positions = self._read(Part(f"{names.positions}.weight", shape, rows=range(self.max_position)))
        return Decoder(
            config,
            shard,
            self.dtype,
            [self._layer(index) for index in shard.layers(config.num_layers)],
            embed,
            positions,
            self._rope(),
            self._norm(names.norm) if shard.is_last else None,
            head,
        )

    @property
    def names(self) -> Names:
        return FAMILIES[self.config.architecture].names

    def _layer(self, index: int) -> DecoderLayer:
        config, names, shard = self.config, self.names, self.shard
        prefix = f"{names.layer}.{index}."
        heads, kv_heads = shard.part(config.num_heads), shard.kv_heads(config.num_kv_heads)
        scale = config.head_dim**-0.5 / (index + 1 if config.scale_by_layer else 1)
        return DecoderLayer(
            attention_norm=self._norm(prefix + names.attention_norm),
            qkv=self._columns(self._qkv(prefix), config.qkv_bias),
            head_norms=self._head_norms(prefix) if config.head_norms else None,
            output=self._rows(self._output(prefix), config.output_bias),
            mlp_norm=self._norm(prefix + names.mlp_norm),
            gate_up=self._columns(self._gate_up(prefix), config.mlp_bias),
            down=self._rows(self._down(prefix), config.mlp_bias),
            spec=AttentionSpec(len(heads), len(kv_heads), config.head_dim, scale, config.window(index)),
        )

    # -- matrices -----------------------------------------------------------------------------------------------

    def matrices(self, index: int) -> dict[str, list[Part]]:
        """Of which parts of which tensors a layer's matrices are made on this rank, by their fields in `DecoderLayer`.

        Rows are outputs and columns inputs, however the checkpoint stores them.
        """
        prefix = f"{self.names.layer}.{index}."
        return {
            "qkv": self._qkv(prefix),
            "output": [self._output(prefix)],
            "gate_up": self._gate_up(prefix),
            "down": [self._down(prefix)],
        }

    def _qkv(self, prefix: str) -> list[Part]:
        config, shard = self.config, self.shard
        kv = shard.kv_heads(config.num_kv_heads)
        sizes = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
        shares = [shard.part(config.num_heads), kv, kv]
        return self._stacked(prefix, self.names.qkv, sizes, shares, config.head_dim)

    def _gate_up(self, prefix: str) -> list[Part]:
        inner = self.config.intermediate_size
        count = 2 if self.config.gated else 1
        return self._stacked(prefix, self.names.gate_up, [inner] * count, [self.shard.part(inner)] * count, 1)

    def _stacked(
        self, prefix: str, names: tuple[str, ...], sizes: list[int], shares: list[range], unit: int
    ) -> list[Part]:
        """This rank's rows of matrices that are each in a tensor of its own, or all one under the other in one."""
        columns = self.config.hidden_size
        parts = []
        before = 0
        for index, (size, share) in enumerate(zip(sizes, shares, strict=True)):
            fused = len(names) < len(sizes)
            rows = (sum(sizes) if fused else size) * unit
            first = before * unit if fused else 0
            taken = range(first + share.start * unit, first + share.stop * unit)
            parts.append(Part(f"{prefix}{names[0 if fused else index]}.weight", (rows, columns), rows=taken))
            before += size
        return parts

    def _columns(self, parts: list[Part], with_bias: bool) -> LinearOp:
        """A matrix of whose outputs this rank has some."""
        weight = self._read(*(part.stored(transposed=self.names.transposed) for part in parts))
        bias = self._read(*(part.bias() for part in parts)) if with_bias else None
        return self.backend.linear(weight, bias)

    def _output(self, prefix: str) -> Part:
        return self._summed(prefix + self.names.output, self.config.num_heads, self.config.head_dim)

    def _down(self, prefix: str) -> Part:
        return self._summed(prefix + self.names.down, self.config.intermediate_size, 1)

    def _summed(self, name: str, inputs: int, unit: int) -> Part:
        """This rank's inputs of a matrix."""
        share = self.shard.part(inputs)
        taken = range(share.start * unit, share.stop * unit)
        return Part(f"{name}.weight", (self.config.hidden_size, inputs * unit), columns=taken)

    def _rows(self, part: Part, with_bias: bool) -> LinearOp:
        """A matrix of whose inputs this rank has some; the ranks' results are summed."""
        weight = self._read(part.stored(transposed=self.names.transposed))
        bias = self._read(part.bias()) if with_bias else None
        if self.shard.group.size == 1:
            return self.backend.linear(weight, bias)
        return RowParallel(self.backend.linear(weight), bias, self.shard.group)

    # -- ends ---------------------------------------------------------------------------------------------------

    def _embedding(self) -> Embedding:
        return Embedding(self._vocabulary(self.names.embed), self._token_ids.start, self.shard)

    def _head(self, embed: Embedding | None) -> LinearOp:
        """The head; a tied one is the embedding where this stage has that, else read again."""
        config, names = self.config, self.names
        tied = config.tie_word_embeddings or f"{names.head}.weight" not in self.reader
        if tied and embed is not None:
            op = self.backend.linear(embed.table, shared=True)
        else:
            op = self.backend.linear(self._vocabulary(names.embed if tied else names.head))
        return op if self.shard.group.size == 1 else ColumnParallel(op, self.shard.group, config.vocab_size)

    @property
    def _token_ids(self) -> range:
        return self.shard.vocabulary(self.config.vocab_size)

    def _vocabulary(self, name: str) -> Tensor:
        """This rank's rows of a (vocabulary, hidden) table; zeros past the vocabulary, so that all have as many."""
        config = self.config
        part = Part(f"{name}.weight", (config.vocab_size, config.hidden_size), rows=self._token_ids)
        missing = -(-config.vocab_size // self.shard.group.size) - len(self._token_ids)
        return self._read(part, zeros=missing)

    def _rope(self) -> tuple[Tensor, Tensor] | None:
        config = self.config
        if config.rope is None:
            return None
        cos, sin = rope_tables(config.rope, config.head_dim, self.max_position, self.backend.device)
        return cos.to(self.dtype), sin.to(self.dtype)

    # -- vectors ------------------------------------------------------------------------------------------------

    def _norm(self, name: str) -> Norm:
        part = Part(f"{name}.weight", (self.config.hidden_size,))
        bias = self._read(part.bias()) if self.config.layer_norm else None
        return Norm(self._read(part), bias, self.config.norm_eps)

    def _head_norms(self, prefix: str) -> HeadNorms:
        shape = (self.config.head_dim,)
        query = self._read(Part(f"{prefix}{self.names.query_norm}.weight", shape))
        key = self._read(Part(f"{prefix}{self.names.key_norm}.weight", shape))
        return HeadNorms(query, key, self.config.norm_eps)

    def _read(self, *parts: Part, zeros: int = 0) -> Tensor:
        found = [replace(part, name=self._name(part.name)) for part in parts]
        return self.reader.stack(found, self.dtype, self.backend.device, zeros=zeros)

    def _name(self, name: str) -> str:
        """The tensor's name in this checkpoint: that of a bare decoder has no prefix."""
        bare = name.removeprefix(self.names.base)
        return bare if name not in self.reader and bare in self.reader else name
