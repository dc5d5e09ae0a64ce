"""Scale and shift of each channel: BatchNormalization at inference, and Add, Sub, Mul or Div with constants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.ops.operator import Array, Shape
from kernels import kernels_of
from kernels.cpu.threads import Workers


@dataclass(frozen=True, eq=False)
class Affine:
    """``scale * x + shift``, channel by channel.

    Parameters
    ----------
    scale, shift : (C,), or (1,) for the same number in all channels.
    """

    scale: Array = field(repr=False)
    shift: Array = field(repr=False)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        for name, values in (("scale", self.scale), ("shift", self.shift)):
            if values.size not in (1, shape[2]):
                raise ValueError(f"input has {shape[2]} channels, the {name} has {values.size} values")
        return shape

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output; the input gradient needs nothing more."""
        return kernels_of(input).affine(input, self.scale, self.shift, workers=workers), None

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: None, workers: Workers) -> Array:
        """Return the gradient with respect to the input."""
        return kernels_of(output_gradient).affine_input_gradient(output_gradient, self.scale, workers=workers)

    def astype(self, dtype: np.dtype[Any]) -> Affine:
        """Return the map with its constants in ``dtype``."""
        return replace(self, scale=self.scale.astype(dtype), shift=self.shift.astype(dtype))

    @property
    def parameters(self) -> int:
        """Scales and shifts."""
        return self.scale.size + self.shift.size
