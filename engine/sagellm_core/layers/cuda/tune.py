"""How the products of one row are cut on this device: each kind of matrix is timed with a few tile shapes.

What is timed goes through the matrices of all layers, so that they come from memory and not from the cache, and is
recorded, so that the time is the device's. The compiler keeps what it made on disk: only the first start waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sagellm_core.layers.cuda.fused import FusedDecoder, Product
from sagellm_core.layers.cuda.graphs import Recorder
from sagellm_core.layers.cuda.kernels import GemvTiles, Partials
from sagellm_core.layers.cuda.measure import Timer, fastest

CANDIDATES = (
    GemvTiles(4, 1024, 4),
    GemvTiles(8, 1024, 4),
    GemvTiles(8, 1024, 8),
    GemvTiles(16, 512, 4),
    GemvTiles(2, 2048, 4),
)


@torch.inference_mode()
def tune(model: FusedDecoder, recorder: Recorder, timer: Timer, splits: int) -> None:
    """Set the model's tiles to the quickest for one row. `splits`: how often attention is split in its steps."""
    device = model.decoder.layers[0].attention_norm.weight.device
    kinds = {product.kind: product for product in model.products(0)}
    for kind, first in kinds.items():
        layers = range(model.num_layers) if kind != "head" else range(1)
        each = [product for layer in layers for product in model.products(layer) if product.kind == kind]
        x = torch.randn(1, first.inputs, device=device).to(model.dtype)
        out = torch.zeros(1, first.outputs, dtype=model.dtype, device=device)
        room = Partials.room(1, splits, model.decoder.layers[0].spec, device)
        room.partial.zero_()
        room.weight.zero_()
        given = room if kind == "output" else x
        candidates = {str(tiles): _recorded(each, given, out, tiles, recorder) for tiles in CANDIDATES}
        model.tiles[kind] = CANDIDATES[list(candidates).index(fastest(candidates, timer))]


def _recorded(
    products: list[Product], x: torch.Tensor | Partials, out: torch.Tensor, tiles: GemvTiles, recorder: Recorder
) -> Callable[[], None]:
    def run() -> None:
        for product in products:
            product(x, out, tiles)

    return recorder(run)
