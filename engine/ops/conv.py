"""Convolution, with the ReLU behind it if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from engine.ops.operator import Array, Operator, Shape
from engine.ops.pool import AveragePool
from engine.ops.windowed import Windowed
from kernels import Device
from kernels.convolution import Convolution
from kernels.geometry import Window, output_size


@dataclass(frozen=True, eq=False)
class Conv(Windowed):
    """Convolution plus bias, optionally followed by max(x, 0), and where it is run so, by an average pooling.

    Parameters
    ----------
    weight : (kernel height, kernel width, C / group, K).
    bias : (K,) or None.
    window : kernel_shape, strides, pads, dilations and auto_pad of the ONNX node.
    group : as in ONNX.
    relu : whether a Relu follows.
    pool : what is taken in by ``joined``.
    algorithm : that computes it on its device, see ``placed``.

    Source: ONNX Conv (opset 22), Relu (opset 14).
    """

    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    window: Window
    group: int = 1
    relu: bool = False
    pool: AveragePool | None = None
    algorithm: Convolution | None = field(default=None, repr=False)
    kind: ClassVar[str] = "Conv"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', K)."""
        ((height, width, channels),) = shapes
        expected = self.weight.shape[2] * self.group
        if channels != expected:
            rows, columns, per_group, filters = self.weight.shape
            raise ValueError(
                f"input has {channels} channels, weight {(filters, per_group, rows, columns)} expects {expected}"
            )
        shape = (*output_size(self.window, height, width), self.weight.shape[3])
        return self.pool.output_shape([shape]) if self.pool else shape

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        return self._on(device).forward(inputs[0], output_is_kept)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Any
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        return [self._on(device).input_gradient(output_gradient, output, saved)]

    def placed(self, device: Device, dtype: np.dtype[Any], algorithm: str) -> Conv:
        """Return the convolution with its algorithm, which holds the weight on the device."""
        weight, bias = self.weight.astype(dtype, copy=False), self.bias
        found = device.convolution(weight, bias, self.window, self.group, relu=self.relu, algorithm=algorithm)
        return replace(self, algorithm=found)

    def _on(self, device: Device) -> Convolution:
        # Not placed, it is for a look at one operator: the definition's sums.
        return self.algorithm or device.convolution(
            self.weight, self.bias, self.window, self.group, relu=self.relu, algorithm="direct"
        )

    def joined(self, after: Operator) -> tuple[Operator, ...] | None:
        """Return this with an average pooling, or two convolutions that share work, where the algorithm can."""
        if self.algorithm is None:
            return None
        if isinstance(after, AveragePool):
            pooled = self.algorithm.with_pool(after.window)
            return (replace(self, algorithm=pooled, pool=after),) if pooled else None
        if isinstance(after, Conv) and after.algorithm:
            pair = self.algorithm.with_reader(after.algorithm)
            return (replace(self, algorithm=pair[0]), replace(after, algorithm=pair[1])) if pair else None
        return None

    def astype(self, dtype: np.dtype[Any]) -> Conv:
        """Return the convolution with weight and bias in ``dtype``."""
        bias = None if self.bias is None else self.bias.astype(dtype)
        return replace(self, weight=np.ascontiguousarray(self.weight, dtype), bias=bias, algorithm=None)

    @property
    def ends_in_relu(self) -> bool:
        """Whether a ReLU follows."""
        return self.relu

    def before_relu(self) -> Conv:
        """Return the convolution without the ReLU."""
        return replace(self, relu=False, algorithm=None)

    def linear_part(self) -> Conv:
        """Return the convolution without bias and ReLU."""
        return replace(self.before_relu(), bias=None)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weight.size + (0 if self.bias is None else self.bias.size)

    @property
    def parameters_held(self) -> int:
        """Weights and biases, in the forms that the algorithm takes."""
        return (self.algorithm.weight_copies if self.algorithm else 2) * self.parameters

    def held_values(self, output: Shape, output_is_kept: bool) -> tuple[int, int]:
        """Return the kept output, and the ReLU mask where that does not tell it."""
        values = int(np.prod(output))
        masked = 4 * values if self.pool else 0 if output_is_kept or not self.relu else values
        return (values if output_is_kept else 0), masked // 8

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return self.algorithm.scratch_bytes(shape) if self.algorithm else 0

    def multiply_adds(self, output: Shape) -> int:
        """Return one for each weight and output pixel."""
        return output[0] * output[1] * self.weight.size
