"""Scale and shift of each channel: BatchNormalization at inference, and Add, Sub, Mul or Div with constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from engine.ops.operator import Array, Operator, Shape
from kernels import Device


@dataclass(frozen=True, eq=False)
class Affine(Operator):
    """``scale * x + shift``, channel by channel.

    Parameters
    ----------
    scale, shift : (C,), or (1,) for the same number in all channels.
    """

    scale: Array = field(repr=False)
    shift: Array = field(repr=False)
    kind: ClassVar[str] = "Affine"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        (shape,) = shapes
        for name, values in (("scale", self.scale), ("shift", self.shift)):
            if values.size not in (1, shape[2]):
                raise ValueError(f"input has {shape[2]} channels, the {name} has {values.size} values")
        return shape

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs nothing more."""
        return device.affine(inputs[0], self.scale, self.shift), None

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: None
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input."""
        return [device.affine_input_gradient(output_gradient, self.scale)]

    def placed(self, device: Device, dtype: np.dtype[Any], algorithm: str) -> Affine:
        """Return the map with its constants on the device."""
        scale, shift = (device.put_parameter(values, dtype) for values in (self.scale, self.shift))
        return replace(self, scale=scale, shift=shift)

    def astype(self, dtype: np.dtype[Any]) -> Affine:
        """Return the map with its constants in ``dtype``."""
        return replace(self, scale=self.scale.astype(dtype), shift=self.shift.astype(dtype))

    def linear_part(self) -> Affine:
        """Return the map without its shift."""
        return replace(self, shift=np.zeros_like(self.shift))

    @property
    def parameters(self) -> int:
        """Scales and shifts."""
        return self.scale.size + self.shift.size
