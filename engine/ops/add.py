"""The sum of branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.ops.junction import Junction
from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True)
class Add(Junction):
    """The sum of activations of one shape. Source: ONNX Add (opset 14) and Sum (opset 13), without broadcasting."""

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the inputs' shape."""
        for shape in shapes[1:]:
            if shape != shapes[0]:
                raise ValueError(f"inputs of the shapes {_listed(shapes)} cannot be added, they must be the same")
        return shapes[0]

    def join(self, inputs: Sequence[Array], workers: Workers) -> Array:
        """Return the sum, taken in the order of the inputs."""
        return kernels_of(inputs[0]).add(inputs, workers=workers)

    def input_gradients(self, output_gradient: Array, shapes: Sequence[Shape], workers: Workers) -> list[Array]:
        """Return the gradient with respect to each input: the output's, copied for all but the first."""
        add = kernels_of(output_gradient).add
        return [output_gradient, *(add([output_gradient], workers=workers) for _ in shapes[1:])]


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
