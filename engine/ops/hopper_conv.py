"""A 3x3 convolution with ReLU in 16 bits on the tensor cores of compute capability 9.0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from engine.ops.conv import Conv
from engine.ops.operator import Array, Shape
from kernels import kernels_of, to_cuda
from kernels.cpu.threads import Workers


@dataclass(frozen=True, eq=False)
class HopperConv:
    """What the network's plan makes of a convolution where it is asked to: the same, by another algorithm.

    Parameters
    ----------
    conv : with ``relu``, its parameters on the GPU.
    """

    conv: Conv

    @staticmethod
    def suits(conv: Conv) -> bool:
        """Say whether the algorithm takes a convolution."""
        window, (rows, columns, channels, filters) = conv.window, conv.weight.shape
        return (
            conv.relu
            and conv.bias is not None
            and conv.group == 1
            and (rows, columns) == (3, 3)
            and window.strides == window.dilations == (1, 1)
            and window.pads == (1, 1, 1, 1)
            and window.auto_pad == "NOTSET"
            and conv.weight.dtype == np.float16
            and bool(kernels_of(conv.weight).hopper_suits(channels, filters))
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', K)."""
        return self.conv.output_shape(shape)

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the signs behind the ReLU."""
        kernels = kernels_of(input)
        output = kernels.hopper_conv(input, self._packed, self.conv.bias, relu=True, workers=workers)
        return output, None if output_is_kept else kernels.relu_sign(output, workers=workers)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any, workers: Workers) -> Array:
        """Return the gradient with respect to the input: back through the ReLU and the flipped weight."""
        kernels = kernels_of(output_gradient)
        gradient = kernels.relu_input_gradient(
            output_gradient, output if saved is None else saved, out=output_gradient, workers=workers
        )
        result: Array = kernels.hopper_conv(gradient, self._packed_flipped, self._no_bias, workers=workers)
        return result

    @cached_property
    def _packed(self) -> Array:
        packed: Array = kernels_of(self.conv.weight).pack_weight(self.conv.weight)
        return packed

    @cached_property
    def _packed_flipped(self) -> Array:
        packed: Array = kernels_of(self.conv.weight).pack_weight(self.conv.flipped_weight)
        return packed

    @cached_property
    def _no_bias(self) -> Array:
        zeros: Array = to_cuda(np.zeros(self.conv.weight.shape[2], np.float32))
        return zeros

    def astype(self, dtype: np.dtype[Any]) -> HopperConv:
        """Return the same with its parameters in ``dtype``."""
        return replace(self, conv=self.conv.astype(dtype))

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.conv.parameters
