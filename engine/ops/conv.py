"""Convolution, with the ReLU behind it if there is one."""

from __future__ import annotations

from abc import abstractmethod
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


class AnyConv(Windowed):
    """What a convolution is known by, with or without its parameters at hand."""

    group: int
    relu: bool
    kind: ClassVar[str] = "Conv"

    @property
    @abstractmethod
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Kernel height, kernel width, C / group, K."""

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', K)."""
        ((height, width, channels),) = shapes
        rows, columns, per_group, filters = self.weight_shape
        expected = per_group * self.group
        if channels != expected:
            raise ValueError(
                f"input has {channels} channels, weight {(filters, per_group, rows, columns)} expects {expected}"
            )
        return (*output_size(self.window, height, width), filters)

    @property
    def ends_in_relu(self) -> bool:
        """Whether a ReLU follows."""
        return self.relu

    def multiply_adds(self, output: Shape) -> int:
        """Return one for each weight and output pixel."""
        return output[0] * output[1] * int(np.prod(self.weight_shape))


@dataclass(frozen=True, eq=False)
class Conv(AnyConv):
    """Convolution plus bias, optionally followed by max(x, 0).

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

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Kernel height, kernel width, C / group, K."""
        rows, columns, per_group, filters = self.weight.shape
        return rows, columns, per_group, filters

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        return self._by(device, "direct").forward(inputs[0], output_is_kept)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Any
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        return [self._by(device, "direct").input_gradient(output_gradient, output, saved)]

    def placed(self, device: Device, dtype: np.dtype[Any], algorithm: str) -> PlacedConv:
        """Return the convolution with its algorithm, which holds the weight on the device."""
        found = replace(self, weight=self.weight.astype(dtype, copy=False))._by(device, algorithm)
        return PlacedConv(found, self.weight_shape, self.window, self.group, self.relu)

    def _by(self, device: Device, algorithm: str) -> Convolution:
        return device.convolution(self.weight, self.bias, self.window, self.group, relu=self.relu, algorithm=algorithm)

    def astype(self, dtype: np.dtype[Any]) -> Conv:
        """Return the convolution with weight and bias in ``dtype``."""
        bias = None if self.bias is None else self.bias.astype(dtype)
        return replace(self, weight=np.ascontiguousarray(self.weight, dtype), bias=bias)

    def before_relu(self) -> Conv:
        """Return the convolution without the ReLU."""
        return replace(self, relu=False)

    def linear_part(self) -> Conv:
        """Return the convolution without bias and ReLU."""
        return replace(self, relu=False, bias=None)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weight.size + (0 if self.bias is None else self.bias.size)


@dataclass(frozen=True, eq=False)
class PlacedConv(AnyConv):
    """A convolution on a device, and where it is run so, an average pooling behind it.

    Parameters
    ----------
    algorithm : that computes it, and holds the weight as it takes it.
    shape : of the weight that was placed.
    window, group, relu : as in ``Conv``.
    pool : what is taken in by ``joined``.
    """

    algorithm: Convolution = field(repr=False)
    shape: tuple[int, int, int, int]
    window: Window
    group: int
    relu: bool
    pool: AveragePool | None = None

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Kernel height, kernel width, C / group, K."""
        return self.shape

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', K), behind the pooling."""
        shape = super().output_shape(shapes)
        return self.pool.output_shape([shape]) if self.pool else shape

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output, and what the algorithm needs for the input gradient."""
        return self.algorithm.forward(inputs[0], output_is_kept)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Any
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input."""
        return [self.algorithm.input_gradient(output_gradient, output, saved)]

    def joined(self, after: Operator) -> tuple[Operator, ...] | None:
        """Return this with an average pooling, or two convolutions that share work, where the algorithm can."""
        if isinstance(after, AveragePool):
            pooled = self.algorithm.with_pool(after.window)
            return (replace(self, algorithm=pooled, pool=after),) if pooled else None
        if isinstance(after, PlacedConv):
            pair = self.algorithm.with_reader(after.algorithm)
            return (replace(self, algorithm=pair[0]), replace(after, algorithm=pair[1])) if pair else None
        return None

    def astype(self, dtype: np.dtype[Any]) -> PlacedConv:
        """Raise ValueError: there is no weight to convert any more."""
        raise ValueError("a compact network has no weights to convert: load it anew, in the precision that is wanted")

    @property
    def parameters_held(self) -> int:
        """The weight's numbers, in the forms that the algorithm takes."""
        return self.algorithm.weight_copies * int(np.prod(self.weight_shape))

    @property
    def parameters_made(self) -> int:
        """The numbers of those forms that have been made."""
        return self.algorithm.copies_made * int(np.prod(self.weight_shape))

    def held_values(self, output: Shape, output_is_kept: bool) -> tuple[int, int]:
        """Return the kept output, and the ReLU mask where that does not tell it."""
        values = int(np.prod(output))
        masked = 4 * values if self.pool else 0 if output_is_kept or not self.relu else values
        return (values if output_is_kept else 0), masked // 8

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return self.algorithm.scratch_bytes(shape)
