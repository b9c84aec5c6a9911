"""Which part of a model a rank holds: its share of every matrix (tensor parallelism), its layers (pipeline stages).

Tensor parallelism is that of Shoeybi et al. 2019 ("Megatron-LM"): a rank has some of the heads and some of the MLP's
inner columns, so that each layer needs two sums over the ranks; embedding and head are split by vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sagellm_core.comm import Communicator, SingleProcess


@dataclass(slots=True, frozen=True)
class Shard:
    """A rank's part: `group` are the ranks that share each matrix, `stage` of `num_stages` a run of whole layers.

    The first stage has the embedding, the last the final norm and the head.
    """

    group: Communicator = field(default_factory=SingleProcess)
    stage: int = 0
    num_stages: int = 1

    @property
    def is_first(self) -> bool:
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        return self.stage == self.num_stages - 1

    def layers(self, num_layers: int) -> range:
        """The layers of this stage; stages differ by at most one layer, the first ones have more."""
        least, more = divmod(num_layers, self.num_stages)
        first = self.stage * least + min(self.stage, more)
        return range(first, first + least + (self.stage < more))

    def part(self, size: int) -> range:
        """This rank's even share of `size` rows or columns, which the group's size divides."""
        each = size // self.group.size
        return range(self.group.rank * each, (self.group.rank + 1) * each)

    def kv_heads(self, num_kv_heads: int) -> range:
        """This rank's key-value heads; where there are fewer heads than ranks, neighbours have the same one."""
        if self.group.size <= num_kv_heads:
            return self.part(num_kv_heads)
        head = self.group.rank * num_kv_heads // self.group.size
        return range(head, head + 1)

    def vocabulary(self, vocab_size: int) -> range:
        """This rank's token ids. All ranks keep as many rows; those past the vocabulary are zero."""
        each = -(-vocab_size // self.group.size)
        first = min(self.group.rank * each, vocab_size)
        return range(first, min(first + each, vocab_size))


WHOLE = Shard()
"""The whole model on one device."""
