"""The channels of branches, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.ops.junction import Junction
from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True)
class Concat(Junction):
    """The channels of activations of one height and width, in the order of the inputs.

    Source: ONNX Concat (opset 13) along the channels.
    """

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the height and width of the inputs and the sum of their channels."""
        height, width, _ = shapes[0]
        for shape in shapes[1:]:
            if shape[:2] != (height, width):
                sizes = ", ".join(f"{one[0]}x{one[1]}" for one in shapes)
                raise ValueError(f"inputs of {sizes} cannot be put together, they must be of one height and width")
        return height, width, sum(shape[2] for shape in shapes)

    def join(self, inputs: Sequence[Array], workers: Workers) -> Array:
        """Return all channels."""
        return kernels_of(inputs[0]).concat(inputs, workers=workers)

    def input_gradients(self, output_gradient: Array, shapes: Sequence[Shape], workers: Workers) -> list[Array]:
        """Return the gradient with respect to each input: a copy of its channels'."""
        return kernels_of(output_gradient).split(output_gradient, [shape[2] for shape in shapes])
