"""What an operator of several inputs is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from engine.ops.operator import Array, Shape
from kernels.cpu.threads import Workers


class Junction(ABC):
    """Where branches meet: activations of shape (H, W, C) in, one for each of a node's ``inputs``, and one out.

    Joined with nothing, an activation stays what it is. That makes it an ``Operator`` like the others, for code that
    knows chains only.
    """

    @abstractmethod
    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's shape; raises ValueError when the inputs' shapes do not fit together."""

    @abstractmethod
    def join(self, inputs: Sequence[Array], workers: Workers) -> Array:
        """Return the output, an array of its own; the input gradients need the inputs' shapes only."""

    @abstractmethod
    def input_gradients(self, output_gradient: Array, shapes: Sequence[Shape], workers: Workers) -> list[Array]:
        """Return the gradient with respect to each input; ``output_gradient`` may be among them.

        No two share memory: each goes down a branch of its own, where it may be overwritten.
        """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of one activation alone."""
        return self.joined_shape([shape])

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return one activation alone."""
        return self.join([input], workers), input.shape

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Shape, workers: Workers) -> Array:
        """Return the gradient with respect to one activation alone."""
        return self.input_gradients(output_gradient, [saved], workers)[0]

    def astype(self, dtype: np.dtype[Any]) -> Self:
        """Return itself: there is nothing to convert."""
        return self

    @property
    def parameters(self) -> int:
        """None."""
        return 0
