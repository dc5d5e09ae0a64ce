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

    def begins(self, shape: Shape) -> tuple[int, int]:
        """Return the rows above and the columns on the left."""
        top, left, _, _ = self.pads
        return top, left

    def reach(self, axis: int, size: int, rows: tuple[int, int]) -> tuple[int, int]:
        """Return which of an input's rows or columns some of the output's are computed from."""
        begin = self.pads[axis]
        places = [place - begin for place in (rows[0], rows[1] - 1)]
        if self.mode == "reflect":  # the edge's other side, as far as what lies beyond it
            places += [-place for place in places if place < 0]
            places += [2 * (size - 1) - place for place in places if place >= size]
        if self.mode == "edge":
            places += [min(max(place, 0), size - 1) for place in places]
        return min(places), max(places) + 1

    def linear_part(self) -> Pad:
        """Return itself."""
        return self
