"""The kernels' int8 and int4 matrices in torch's operators, where the kernels cannot be: the same numbers, slower."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sagellm_core.layers.cpu.library import Type

_GROUP = {Type.I8: 128, Type.I4: 64}


class QuantisedLinear:
    """Weights (outputs, inputs) as whole numbers with a scale for every 128 (int8) or 64 (int4) inputs of an output.

    Activations are rounded to int8 with a scale for the same inputs of a row (dynamic quantisation, W8A8 or W4A8).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: Type) -> None:
        self.dtype = weight.dtype
        self.bias = bias
        self.inputs = weight.shape[1]
        self._size = _GROUP[kind]
        groups = self._grouped(weight.float())
        place = groups.abs().argmax(-1, keepdim=True)
        most = groups.gather(-1, place)
        low, high = (-127, 127) if kind is Type.I8 else (-8, 7)
        scales = most.abs() / 127.0 if kind is Type.I8 else most / -8.0
        inverse = torch.where(scales == 0, 0.0, 1.0 / scales)
        self.codes = (groups * inverse).round().clamp(low, high).to(torch.int8)
        self.scales = scales

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, inputs) to (rows, outputs) of the same type."""
        groups = self._grouped(x.float())
        most = groups.abs().amax(-1, keepdim=True)
        inverse = torch.where(most == 0, 0.0, 127.0 / most)
        rounded = (groups * inverse).round() * (most / 127.0)
        out = rounded.flatten(1) @ (self.codes * self.scales).flatten(1).t()
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows `ids` of the weight, float32: an embedding."""
        return (self.codes[ids] * self.scales[ids]).flatten(1)[:, : self.inputs]

    def _grouped(self, matrix: Tensor) -> Tensor:
        """(rows, groups, size), zeros past the inputs."""
        padded = pad(matrix, (0, -matrix.shape[1] % self._size))
        return padded.view(matrix.shape[0], -1, self._size)
