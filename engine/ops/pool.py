"""Average and maximum pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers
from kernels.geometry import Window, output_size


@dataclass(frozen=True)
class AveragePool:
    """The mean over each window. Source: ONNX AveragePool (opset 22).

    Parameters
    ----------
    window : kernel_shape, strides, pads, dilations, ceil_mode and auto_pad of the ONNX node.
    count_include_pad : whether padding counts as zeros.
    """

    window: Window
    count_include_pad: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', C)."""
        return (*output_size(self.window, *shape[:2]), shape[2])

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the means; the input gradient needs the input's shape only."""
        output = kernels_of(input).average_pool(
            input, self.window, count_include_pad=self.count_include_pad, workers=workers
        )
        return output, input.shape

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Shape, workers: Workers) -> Array:
        """Return the gradient with respect to the input: shared equally among each window."""
        return kernels_of(output_gradient).average_pool_input_gradient(
            output_gradient, saved, self.window, count_include_pad=self.count_include_pad, workers=workers
        )

    def astype(self, dtype: np.dtype[Any]) -> AveragePool:
        """Return itself: there is nothing to convert."""
        return self

    @property
    def parameters(self) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window. Source: ONNX MaxPool (opset 22).

    Parameters
    ----------
    window : kernel_shape, strides, pads, dilations, ceil_mode and auto_pad of the ONNX node.
    """

    window: Window

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', C)."""
        return (*output_size(self.window, *shape[:2]), shape[2])

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the maxima; the input gradient needs the winners and the input's shape."""
        output, winners = kernels_of(input).max_pool(input, self.window, workers=workers)
        return output, (winners, input.shape)

    def input_gradient(
        self, output_gradient: Array, output: Array | None, saved: tuple[Array, Shape], workers: Workers
    ) -> Array:
        """Return the gradient with respect to the input: each output's goes to its winner."""
        winners, input_shape = saved
        return kernels_of(output_gradient).max_pool_input_gradient(
            output_gradient, winners, input_shape, self.window, workers=workers
        )

    def astype(self, dtype: np.dtype[Any]) -> MaxPool:
        """Return itself: there is nothing to convert."""
        return self

    @property
    def parameters(self) -> int:
        """None."""
        return 0
