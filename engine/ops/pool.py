"""Average and maximum pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from engine.ops.operator import Array, Shape
from engine.ops.windowed import Windowed
from kernels import Device
from kernels.geometry import Window, output_size


@dataclass(frozen=True)
class AveragePool(Windowed):
    """The mean over each window. Source: ONNX AveragePool (opset 22).

    Parameters
    ----------
    window : kernel_shape, strides, pads, dilations, ceil_mode and auto_pad of the ONNX node.
    count_include_pad : whether padding counts as zeros.
    """

    window: Window
    count_include_pad: bool = False
    kind: ClassVar[str] = "AveragePool"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', C)."""
        (shape,) = shapes
        return (*output_size(self.window, *shape[:2]), shape[2])

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the means; the input gradient needs the input's shape only."""
        output = device.average_pool(inputs[0], self.window, count_include_pad=self.count_include_pad)
        return output, inputs[0].shape

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Shape
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: shared equally among each window."""
        count = self.count_include_pad
        return [device.average_pool_input_gradient(output_gradient, saved, self.window, count_include_pad=count)]

    def linear_part(self) -> AveragePool:
        """Return itself."""
        return self


@dataclass(frozen=True)
class MaxPool(Windowed):
    """The largest value of each window. Source: ONNX MaxPool (opset 22).

    Parameters
    ----------
    window : kernel_shape, strides, pads, dilations, ceil_mode and auto_pad of the ONNX node.
    """

    window: Window
    kind: ClassVar[str] = "MaxPool"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', C)."""
        (shape,) = shapes
        return (*output_size(self.window, *shape[:2]), shape[2])

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the maxima; the input gradient needs the winners and the input's shape."""
        output, winners = device.max_pool(inputs[0], self.window)
        return output, (winners, inputs[0].shape)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: tuple[Array, Shape]
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: each output's goes to its winner."""
        winners, input_shape = saved
        return [device.max_pool_input_gradient(output_gradient, winners, input_shape, self.window)]

    def held_values(self, output: Shape, output_is_kept: bool) -> tuple[int, int]:
        """Return the kept output, and a byte for each winner."""
        values = int(np.prod(output))
        return (values if output_is_kept else 0), values
