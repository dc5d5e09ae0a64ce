"""Rectified linear unit, where no convolution stands before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True)
class Relu:
    """max(x, 0). Source: ONNX Relu (opset 14)."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        return shape

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs its signs, from the output itself if that is kept."""
        kernels = kernels_of(input)
        output = kernels.relu(input, workers=workers)
        return output, None if output_is_kept else kernels.relu_sign(output, workers=workers)

    def input_gradient(
        self, output_gradient: Array, output: Array | None, saved: NDArray[np.uint8] | None, workers: Workers
    ) -> Array:
        """Return the gradient with respect to the input: 0 where the input was not positive."""
        return kernels_of(output_gradient).relu_input_gradient(
            output_gradient, output if saved is None else saved, out=output_gradient, workers=workers
        )

    def astype(self, dtype: np.dtype[Any]) -> Relu:
        """Return itself: there is nothing to convert."""
        return self

    @property
    def parameters(self) -> int:
        """None."""
        return 0
