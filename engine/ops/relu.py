"""Rectified linear unit, where no convolution stands before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.ops.operator import Array, Operator, Shape
from kernels import Device


@dataclass(frozen=True)
class Relu(Operator):
    """max(x, 0). Source: ONNX Relu (opset 14)."""

    kind: ClassVar[str] = "Relu"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return shapes[0]

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the mask of what is positive, which a kept output tells."""
        output = device.relu(inputs[0])
        return output, None if output_is_kept else device.relu_mask(output)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: NDArray[np.uint8] | None
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: 0 where the input was not positive."""
        behind: Any = output if saved is None else saved
        return [device.relu_input_gradient(output_gradient, behind, out=output_gradient)]

    @property
    def ends_in_relu(self) -> bool:
        """Yes."""
        return True

    def held_values(self, output: Shape, output_is_kept: bool) -> tuple[int, int]:
        """Return the kept output, or one bit a value."""
        values = int(np.prod(output))
        return (values, 0) if output_is_kept else (0, values // 8)
