"""Which algorithm computes a layer's convolution on the CPU: the definition's sums, or Winograd's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
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
    weight : (kernel height, kernel width, C / group, K).
    bias : (K,) or None.
    window, group : as in ``conv``.
    relu : whether max(x, 0) follows.
    algorithm : ``"auto"``, or ``"direct"`` for the definition's sums.
    """
    if algorithm == "auto" and relu and group == 1 and _suits_winograd(weight, window):
        return WinogradConvolution(threads, Transformed(weight), bias, window)
    return DirectConvolution(threads, weight, bias, window, group, relu)


@dataclass(frozen=True, eq=False)
class DirectConvolution(Convolution):
    """The definition's sums, strip by strip: see ``kernels/cpu/conv.py``.

    Parameters
    ----------
    weight, bias, window, group, relu : as for ``convolution``.
    """

    threads: Threads
    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    window: Window
    group: int
    relu: bool
    weight_copies: ClassVar[int] = 2  # itself, and flipped

    @cached_property
    def flipped(self) -> Array:
        """The weight of the transposed convolution."""
        return flip_weight(self.weight, self.group)

    @property
    def copies_made(self) -> int:
        """1 where the flipped weight has been asked for."""
        return int("flipped" in vars(self))

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        output = conv(self.threads, input, self.weight, self.bias, self.window, self.group, relu=self.relu)
        mask = relu_mask(self.threads, output) if self.relu and not output_is_kept else None
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        input_shape, mask = saved
        if self.relu:
            behind: Any = output if mask is None else mask
            output_gradient = relu_input_gradient(self.threads, output_gradient, behind, out=output_gradient)
        return conv_input_gradient(
            self.threads, output_gradient, self.weight, input_shape, self.window, self.group, flipped=self.flipped
        )

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return conv_scratch_bytes(
            shape, self.weight.shape, self.window, self.group, self.weight.itemsize, self.threads.count
        )


class Transformed:
    """A weight as Winograd's algorithm takes it, made when it is first asked for; the weight itself is let go of then.

    Parameters
    ----------
    weight : (3, 3, C, K).
    """

    def __init__(self, weight: Array) -> None:
        self._weight: Array | None = weight
        self._lock = Lock()
        self.shape, self.itemsize = (TILE * TILE, weight.shape[2], weight.shape[3]), weight.itemsize

    @property
    def is_made(self) -> bool:
        """Whether it has been asked for."""
        return self._weight is None

    @property
    def values(self) -> Array:
        """As ``transform_weight`` returns it, of ``shape``."""
        with self._lock:
            if self._weight is not None:
                self._values, self._weight = transform_weight(self._weight), None
            return self._values


@dataclass(frozen=True, eq=False)
class WinogradConvolution(Convolution):
    """Winograd's algorithm with ReLU, and a 2x2 average pooling if there is one: see ``kernels/cpu/conv_block.py``.

    Parameters
    ----------
    transformed : the weight, for both directions.
    bias, window : as for ``convolution``.
    pool : whether the pooling follows.
    """

    threads: Threads
    transformed: Transformed
    bias: Array | None = field(repr=False)
    window: Window
    pool: bool = False
    weight_copies: ClassVar[int] = 4  # 36 numbers for 9

    @property
    def copies_made(self) -> int:
        """All where the transformed weight has been asked for."""
        return self.weight_copies if self.transformed.is_made else 0

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        pads = resolved_pads(self.window, *input.shape[:2])
        keep_mask = self.pool or not output_is_kept
        output, mask = conv_block(
            self.threads, input, self.transformed.values, self.bias, pads, pool=self.pool, keep_mask=keep_mask
        )
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input."""
        input_shape, mask = saved
        return conv_block_input_gradient(
            self.threads,
            output_gradient,
            self.transformed.values,
            output_size(self.window, *input_shape[:2]),
            resolved_pads(self.window, *input_shape[:2]),
            pool=self.pool,
            output=output if mask is None else None,
            mask=mask,
        )

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        rows, columns = output_size(self.window, *shape[:2])
        return scratch_bytes(rows, columns, self.transformed.shape, self.transformed.itemsize, self.threads.count)

    def with_pool(self, window: Window) -> Convolution | None:
        """Return the convolution with the average over 2x2 behind it; None for other windows."""
        fits = not self.pool and window == Window((POOL, POOL), strides=(POOL, POOL))
        return replace(self, pool=True) if fits else None


def _suits_winograd(weight: Array, window: Window) -> bool:
    """Say whether Winograd's algorithm can be used, and is faster, where a ReLU follows.

    Only in float32: float64 and complex numbers are for checking, and stay with the definition. The first layer has too
    few input channels for the transforms to pay.
    """
    rows, columns, channels, outputs = weight.shape
    return (
        (rows, columns) == (3, 3)
        and window.strides == window.dilations == (1, 1)
        and max(window.pads) <= 2
        and weight.dtype == np.float32
        and channels >= 16
        and outputs >= 16
        and outputs % 8 == 0
    )
