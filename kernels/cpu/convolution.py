"""Which algorithm computes a layer's convolution on the CPU: the definition's sums, or Winograd's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.convolution import Convolution, Shape
from kernels.cpu.conv import conv, conv_input_gradient, conv_scratch_bytes, flip_weight
from kernels.cpu.conv_block import POOL, conv_block, conv_block_input_gradient
from kernels.cpu.relu import relu_input_gradient, relu_mask
from kernels.cpu.threads import Threads
from kernels.cpu.winograd import TILE, scratch_bytes, transform_weight
from kernels.geometry import Window, output_size, resolved_pads

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Filters:
    """The parameters of a convolution, and its weight as each algorithm takes it.

    Parameters
    ----------
    weight : (kernel height, kernel width, C / group, K).
    bias : (K,) or None.
    window, group : as in ``conv``.
    relu : whether max(x, 0) follows.
    """

    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    window: Window
    group: int
    relu: bool

    @cached_property
    def flipped(self) -> Array:
        """The weight of the transposed convolution."""
        return flip_weight(self.weight, self.group)

    @cached_property
    def transformed(self) -> Array:
        """The weight as Winograd's algorithm takes it, in both directions."""
        return transform_weight(self.weight)


def convolution(
    threads: Threads,
    weight: Array,
    bias: Array | None,
    window: Window,
    group: int = 1,
    *,
    relu: bool = False,
    algorithm: str = "auto",
) -> Convolution:
    """Return a layer's convolution by the algorithm that is fastest for it.

    Parameters
    ----------
    weight, bias, window, group, relu : see ``Filters``.
    algorithm : ``"auto"``, or ``"direct"`` for the definition's sums.
    """
    filters = Filters(weight, bias, window, group, relu)
    if algorithm == "auto" and _suits_winograd(filters):
        return WinogradConvolution(threads, filters)
    return DirectConvolution(threads, filters)


@dataclass(frozen=True, eq=False)
class DirectConvolution(Convolution):
    """The definition's sums, strip by strip: see ``kernels/cpu/conv.py``."""

    threads: Threads
    filters: Filters
    weight_copies: ClassVar[int] = 2  # itself, and flipped

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        weight, bias, window, group, relu = _fields(self.filters)
        output = conv(self.threads, input, weight, bias, window, group, relu=relu)
        mask = relu_mask(self.threads, output) if relu and not output_is_kept else None
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        weight, _, window, group, relu = _fields(self.filters)
        input_shape, mask = saved
        if relu:
            behind: Any = output if mask is None else mask
            output_gradient = relu_input_gradient(self.threads, output_gradient, behind, out=output_gradient)
        flipped = self.filters.flipped
        return conv_input_gradient(self.threads, output_gradient, weight, input_shape, window, group, flipped=flipped)

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        weight, _, window, group, _ = _fields(self.filters)
        return conv_scratch_bytes(shape, weight.shape, window, group, weight.itemsize, self.threads.count)


@dataclass(frozen=True, eq=False)
class WinogradConvolution(Convolution):
    """Winograd's algorithm with ReLU, and a 2x2 average pooling if there is one: see ``kernels/cpu/conv_block.py``."""

    threads: Threads
    filters: Filters
    pool: bool = False
    weight_copies: ClassVar[int] = 5  # itself, and transformed to 36 numbers for 9

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        pads = resolved_pads(self.filters.window, *input.shape[:2])
        keep_mask = self.pool or not output_is_kept
        output, mask = conv_block(
            self.threads, input, self.filters.transformed, self.filters.bias, pads, pool=self.pool, keep_mask=keep_mask
        )
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input."""
        input_shape, mask = saved
        return conv_block_input_gradient(
            self.threads,
            output_gradient,
            self.filters.transformed,
            output_size(self.filters.window, *input_shape[:2]),
            resolved_pads(self.filters.window, *input_shape[:2]),
            pool=self.pool,
            output=output if mask is None else None,
            mask=mask,
        )

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        rows, columns = output_size(self.filters.window, *shape[:2])
        weight = self.filters.weight
        places = (TILE * TILE, shape[2], weight.shape[3])
        return scratch_bytes(rows, columns, places, weight.itemsize, self.threads.count)

    def with_pool(self, window: Window) -> Convolution | None:
        """Return the convolution with the average over 2x2 behind it; None for other windows."""
        fits = not self.pool and window == Window((POOL, POOL), strides=(POOL, POOL))
        return replace(self, pool=True) if fits else None


def _suits_winograd(filters: Filters) -> bool:
    """Say whether Winograd's algorithm can be used, and is faster.

    Only in float32: float64 and complex numbers are for checking, and stay with the definition. The first layer has too
    few input channels for the transforms to pay.
    """
    window, (rows, columns, channels, outputs) = filters.window, filters.weight.shape
    return (
        filters.relu
        and filters.group == 1
        and (rows, columns) == (3, 3)
        and window.strides == window.dilations == (1, 1)
        and max(window.pads) <= 2
        and filters.weight.dtype == np.float32
        and channels >= 16
        and outputs >= 16
        and outputs % 8 == 0
    )


def _fields(filters: Filters) -> tuple[Array, Array | None, Window, int, bool]:
    return filters.weight, filters.bias, filters.window, filters.group, filters.relu
