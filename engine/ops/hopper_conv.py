"""A 3x3 convolution with ReLU in 16 bits on the tensor cores of compute capability 9.0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.ops.conv import Conv
from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True, eq=False)
class HopperConv:
    """What the network's plan makes of a convolution where it is asked to: the same, by another algorithm.

    Parameters
    ----------
    conv : with ``relu``, its parameters on the GPU.
    masks : whether the input is the output of another one's ReLU, and nothing else reads it: the input gradient is then
        taken back through that ReLU in the same pass.
    masked : whether what reads the output does so: the output gradient has then come back through the ReLU already.
    """

    conv: Conv
    masks: bool = False
    masked: bool = False

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
        """Return the output; the input gradient needs the signs behind the ReLU, its own or the input's."""
        kernels = kernels_of(input)
        output = kernels.hopper_conv(input, self.conv.hopper_weight, self.conv.bias, relu=True, workers=workers)
        own = None if output_is_kept or self.masked else kernels.relu_sign(output, workers=workers)
        return output, (own, kernels.relu_sign(input, workers=workers) if self.masks else None)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any, workers: Workers) -> Array:
        """Return the gradient with respect to the input: back through the ReLU and the flipped weight."""
        kernels, (own, below) = kernels_of(output_gradient), saved
        if not self.masked:
            output_gradient = kernels.relu_input_gradient(
                output_gradient, output if own is None else own, out=output_gradient, workers=workers
            )
        return kernels.hopper_conv(output_gradient, self.conv.hopper_flipped_weight, None, sign=below, workers=workers)

    def astype(self, dtype: np.dtype[Any]) -> HopperConv:
        """Return the same with its parameters in ``dtype``."""
        return replace(self, conv=self.conv.astype(dtype))

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.conv.parameters
