"""Padding by zeros, by reflection at the edges, or by the edges themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers
from kernels.geometry import padded_size


@dataclass(frozen=True)
class Pad:
    """Rows and columns around an activation.

    Parameters
    ----------
    pads : top, left, bottom, right.
    mode : ``"constant"`` puts zeros there, ``"reflect"`` what lies as far on the other side of the first or last row or
        column, ``"edge"`` that row or column itself.

    Source: ONNX Pad (opset 24).
    """

    pads: tuple[int, int, int, int]
    mode: str

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape with the padding; raises ValueError where there is too little to reflect."""
        top, left, bottom, right = self.pads
        height, width, channels = shape
        return padded_size(height, top, bottom, self.mode), padded_size(width, left, right, self.mode), channels

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape."""
        return kernels_of(input).pad(input, self.pads, self.mode, workers=workers), input.shape

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Shape, workers: Workers) -> Array:
        """Return the gradient with respect to the input: the sum over all places that a value was taken to."""
        kernels = kernels_of(output_gradient)
        return kernels.pad_input_gradient(output_gradient, saved, self.pads, self.mode, workers=workers)

    def astype(self, dtype: np.dtype[Any]) -> Pad:
        """Return itself: there is nothing to convert."""
        return self

    @property
    def parameters(self) -> int:
        """None."""
        return 0
