"""A convolution as an implicit matrix product on tensor cores, compute capability 8.0 and later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from engine.ops.conv import Conv
from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True, eq=False)
class ImplicitGemmConv:
    """What the network's plan makes of a convolution on a GPU: the same, without patches in memory.

    Parameters
    ----------
    conv : with its parameters on the GPU.
    split : multiply float32 in three products of tf32 parts, which keeps float32's precision, instead of one of
        rounded numbers.
    """

    conv: Conv
    split: bool = False

    @staticmethod
    def suits(conv: Conv) -> bool:
        """Say whether the algorithm takes a convolution."""
        channels, dtype = conv.weight.shape[2], conv.weight.dtype
        return conv.group == 1 and bool(kernels_of(conv.weight).implicit_gemm_suits(channels, dtype))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', K)."""
        return self.conv.output_shape(shape)

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the signs behind the ReLU."""
        kernels, conv = kernels_of(input), self.conv
        output = kernels.implicit_gemm_conv(
            input, self._packed, conv.bias, conv.window, relu=conv.relu, split=self.split, workers=workers
        )
        sign = kernels.relu_sign(output, workers=workers) if conv.relu and not output_is_kept else None
        return output, (input.shape, sign)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any, workers: Workers) -> Array:
        """Return the gradient with respect to the input.

        Back through the ReLU, then the transposed convolution: by the same kernel where it is one with stride 1 and the
        filters suit.
        """
        kernels, conv = kernels_of(output_gradient), self.conv
        (height, width, _), sign = saved
        mirrored = kernels.mirrored_window(conv.window, height, width)
        if mirrored is None or not kernels.implicit_gemm_suits(conv.weight.shape[3], conv.weight.dtype):
            return conv.input_gradient(output_gradient, output, saved, workers)
        if conv.relu:
            output_gradient = kernels.relu_input_gradient(
                output_gradient, output if sign is None else sign, out=output_gradient, workers=workers
            )
        return kernels.implicit_gemm_conv(
            output_gradient, self._packed_flipped, None, mirrored, split=self.split, workers=workers
        )

    @cached_property
    def _packed(self) -> Array:
        return kernels_of(self.conv.weight).pack_weight(self.conv.weight)

    @cached_property
    def _packed_flipped(self) -> Array:
        kernels = kernels_of(self.conv.weight)
        return kernels.pack_weight(kernels.flip_weight(self.conv.weight))

    def astype(self, dtype: np.dtype[Any]) -> ImplicitGemmConv:
        """Return the same with its parameters in ``dtype``."""
        return replace(self, conv=self.conv.astype(dtype))

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.conv.parameters
