"""Matrices on a GPU: in the model's type, or in 8-bit floats with a scale an output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from sagellm_core.layers.cuda.kernels import FEW_ROWS, few_rows, quantize_rows

FLOAT8 = torch.float8_e4m3fn
_LARGEST = 448.0
_MULTIPLE = 16


@dataclass(slots=True)
class CudaLinear:
    """`x @ weight.T + bias` with a matrix (outputs, inputs) as checkpoints have it.

    `scales` (outputs,) float32: the matrix is e4m3, and its rows are multiplied by them. Few rows read it as it is,
    with the input in full precision; for many the input is rounded to e4m3 too, one scale a row (`torch._scaled_mm`).
    """

    weight: Tensor
    bias: Tensor | None = None
    scales: Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        if self.scales is None:
            return linear(x, self.weight, self.bias)
        if x.shape[0] <= FEW_ROWS:
            out = torch.empty((x.shape[0], self.outputs), dtype=x.dtype, device=x.device)
            few_rows(x.contiguous(), self.weight, out, scales=self.scales, bias=self.bias)
            return out
        return self._scaled(x, self.scales)

    def _scaled(self, x: Tensor, scales: Tensor) -> Tensor:
        """Row-wise scaled products come out in bfloat16 alone."""
        small, factors = quantize_rows(x.contiguous())
        bias = None if self.bias is None else self.bias.bfloat16()
        out = torch._scaled_mm(
            small,
            self.weight.t(),
            scale_a=factors[:, None],
            scale_b=scales[None, :],
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return out.to(x.dtype)


def float8_linear(weight: Tensor, bias: Tensor | None) -> CudaLinear:
    """A matrix (outputs, inputs) rounded to e4m3, each row scaled so that its largest value is the type's largest.

    A matrix whose sides the hardware's product does not take (multiples of 16) stays as it is.
    """
    if weight.shape[0] % _MULTIPLE or weight.shape[1] % _MULTIPLE:
        return CudaLinear(weight, bias)
    scales = weight.abs().amax(dim=1).float().clamp(min=1e-12) / _LARGEST
    rounded = (weight.float() / scales[:, None]).clamp(-_LARGEST, _LARGEST).to(FLOAT8)
    return CudaLinear(rounded, bias, scales)
