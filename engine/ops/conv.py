"""Convolution, with the ReLU behind it if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers
from kernels.geometry import Window, output_size


@dataclass(frozen=True, eq=False)
class Conv:
    """Convolution plus bias, optionally followed by max(x, 0) in the same pass over memory.

    Parameters
    ----------
    weight : (kernel height, kernel width, C / group, K).
    bias : (K,) or None.
    window : kernel_shape, strides, pads, dilations and auto_pad of the ONNX node.
    group : as in ONNX.
    relu : whether a Relu follows.

    Source: ONNX Conv (opset 22), Relu (opset 14).
    """

    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    window: Window
    group: int = 1
    relu: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', K)."""
        height, width, channels = shape
        expected = self.weight.shape[2] * self.group
        if channels != expected:
            rows, columns, per_group, filters = self.weight.shape
            raise ValueError(
                f"input has {channels} channels, weight {(filters, per_group, rows, columns)} expects {expected}"
            )
        return (*output_size(self.window, height, width), self.weight.shape[3])

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the signs behind the ReLU."""
        kernels = kernels_of(input)
        output = kernels.conv(input, self.weight, self.bias, self.window, self.group, relu=self.relu, workers=workers)
        sign = kernels.relu_sign(output, workers=workers) if self.relu and not output_is_kept else None
        return output, (input.shape, sign)

    def input_gradient(
        self,
        output_gradient: Array,
        output: Array | None,
        saved: tuple[Shape, NDArray[np.uint8] | None],
        workers: Workers,
    ) -> Array:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        kernels = kernels_of(output_gradient)
        input_shape, sign = saved
        if self.relu:
            output_gradient = kernels.relu_input_gradient(
                output_gradient, output if sign is None else sign, out=output_gradient, workers=workers
            )
        return kernels.conv_input_gradient(
            output_gradient,
            self.weight,
            input_shape,
            self.window,
            self.group,
            flipped=self.flipped_weight,
            workers=workers,
        )

    def scratch_bytes(self, shape: Shape, threads: int) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return kernels_of(self.weight).conv_scratch_bytes(
            shape, self.weight.shape, self.window, self.group, self.weight.dtype.itemsize, threads
        )

    @cached_property
    def flipped_weight(self) -> Array:
        """The weight of the transposed convolution, turned once."""
        return kernels_of(self.weight).flip_weight(self.weight, self.group)

    @cached_property
    def winograd_weight(self) -> Array:
        """The weight as Winograd's algorithm takes it, transformed once."""
        return kernels_of(self.weight).transform_weight(self.weight)

    @cached_property
    def hopper_weight(self) -> Any:
        """The weight as the kernel for compute capability 9.0 takes it, made once."""
        return kernels_of(self.weight).pack_hopper_weight(self.weight)

    @cached_property
    def hopper_flipped_weight(self) -> Any:
        """The same of the transposed convolution."""
        kernels = kernels_of(self.weight)
        return kernels.pack_hopper_weight(kernels.flip_weight(self.weight))

    def astype(self, dtype: np.dtype[Any]) -> Conv:
        """Return the convolution with weight and bias in ``dtype``."""
        bias = None if self.bias is None else self.bias.astype(dtype)
        return replace(self, weight=np.ascontiguousarray(self.weight, dtype), bias=bias)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weight.size + (0 if self.bias is None else self.bias.size)
