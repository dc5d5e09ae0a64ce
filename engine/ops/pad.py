"""Padding by zeros, by reflection at the edges, or by the edges themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.ops.operator import Array, Operator, Shape
from kernels import Device
from kernels.geometry import padded_size


@dataclass(frozen=True)
class Pad(Operator):
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
    kind: ClassVar[str] = "Pad"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape with the padding; raises ValueError where there is too little to reflect."""
        top, left, bottom, right = self.pads
        ((height, width, channels),) = shapes
        return padded_size(height, top, bottom, self.mode), padded_size(width, left, right, self.mode), channels

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape."""
        return device.pad(inputs[0], self.pads, self.mode), inputs[0].shape

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Shape
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: the sum over all places that a value was taken to."""
        return [device.pad_input_gradient(output_gradient, saved, self.pads, self.mode)]

    def linear_part(self) -> Pad:
        """Return itself."""
        return self
