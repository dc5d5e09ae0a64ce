"""Convolution, ReLU and average pooling as one operator: what the network's plan makes of them where it is faster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.conv import Conv
from engine.ops.operator import Array, Shape
from engine.ops.pool import AveragePool
from kernels import kernels_of
from kernels.cpu.threads import Workers
from kernels.cpu.winograd import TILE, scratch_bytes
from kernels.geometry import Window, resolved_pads


@dataclass(frozen=True)
class ConvBlock:
    """A 3x3 convolution with ReLU by Winograd's algorithm, with the 2x2 average pooling behind it if there is one.

    Parameters
    ----------
    conv : with ``relu``.
    pool : whether the average over 2x2 follows.
    """

    conv: Conv
    pool: bool = False

    @staticmethod
    def suits(conv: Conv) -> bool:
        """Say whether the algorithm can be used for a convolution, and is faster.

        Only in float32: float64 and complex numbers are for checking, and stay with the definition. The first layer has
        too few input channels for the transforms to pay.
        """
        window, (rows, columns, channels, filters) = conv.window, conv.weight.shape
        return (
            conv.relu
            and conv.group == 1
            and (rows, columns) == (3, 3)
            and window.strides == window.dilations == (1, 1)
            and max(window.pads) <= 2
            and conv.weight.dtype == np.float32
            and channels >= 16
            and filters >= 16
            and filters % 8 == 0
        )

    @staticmethod
    def takes(pool: AveragePool) -> bool:
        """Say whether a pooling can be done in the same pass."""
        return pool.window == Window((2, 2), strides=(2, 2))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's (H', W', K)."""
        height, width, filters = self.conv.output_shape(shape)
        return (height // 2, width // 2, filters) if self.pool else (height, width, filters)

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the signs behind the ReLU."""
        pads = resolved_pads(self.conv.window, *input.shape[:2])
        output, sign = kernels_of(input).conv_block(
            input,
            self.conv.winograd_weight,
            self.conv.bias,
            pads,
            pool=self.pool,
            keep_sign=self.pool or not output_is_kept,
            workers=workers,
        )
        return output, (input.shape, sign)

    def input_gradient(
        self,
        output_gradient: Array,
        output: Array | None,
        saved: tuple[Shape, NDArray[np.uint8] | None],
        workers: Workers,
    ) -> Array:
        """Return the gradient with respect to the input."""
        input_shape, sign = saved
        return kernels_of(output_gradient).conv_block_input_gradient(
            output_gradient,
            self.conv.winograd_weight,
            self.conv.output_shape(input_shape)[:2],
            resolved_pads(self.conv.window, *input_shape[:2]),
            pool=self.pool,
            output=output if sign is None else None,
            sign=sign,
            workers=workers,
        )

    def scratch_bytes(self, shape: Shape, threads: int) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        rows, columns, filters = self.conv.output_shape(shape)
        weight = self.conv.weight
        places = (TILE * TILE, shape[2], filters)
        return scratch_bytes(rows, columns, places, weight.itemsize, threads)

    def astype(self, dtype: np.dtype[Any]) -> ConvBlock:
        """Return the block with its parameters in ``dtype``."""
        return replace(self, conv=self.conv.astype(dtype))

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.conv.parameters
