"""Where branches of the network meet: the sum of their activations, or their channels one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.ops.operator import Array, Operator, Shape
from kernels import Device


@dataclass(frozen=True)
class Add(Operator):
    """The sum of activations of one shape. Source: ONNX Add (opset 14) and Sum (opset 13), without broadcasting."""

    kind: ClassVar[str] = "Add"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the inputs' shape."""
        for shape in shapes[1:]:
            if shape != shapes[0]:
                raise ValueError(f"inputs of the shapes {_listed(shapes)} cannot be added, they must be the same")
        return shapes[0]

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the sum, taken in the order of the inputs."""
        return device.add(inputs), len(inputs)

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: int
    ) -> Sequence[Array]:
        """Return the gradient with respect to each input: the output's, copied for all but the first."""
        return [output_gradient, *(device.add([output_gradient]) for _ in range(saved - 1))]

    def linear_part(self) -> Operator:
        """Return itself."""
        return self


@dataclass(frozen=True)
class Concat(Operator):
    """The channels of activations of one height and width, in the order of the inputs.

    Source: ONNX Concat (opset 13) along the channels.
    """

    kind: ClassVar[str] = "Concat"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the height and width of the inputs and the sum of their channels."""
        height, width, _ = shapes[0]
        for shape in shapes[1:]:
            if shape[:2] != (height, width):
                sizes = ", ".join(f"{one[0]}x{one[1]}" for one in shapes)
                raise ValueError(f"inputs of {sizes} cannot be put together, they must be of one height and width")
        return height, width, sum(shape[2] for shape in shapes)

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return all channels."""
        return device.concat(inputs), [one.shape[2] for one in inputs]

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: list[int]
    ) -> Sequence[Array]:
        """Return the gradient with respect to each input: a copy of its channels'."""
        return device.split(output_gradient, saved)

    def linear_part(self) -> Operator:
        """Return itself."""
        return self


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
