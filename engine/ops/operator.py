"""What an operator of the network is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from kernels import Device

Array = NDArray[Any]
Shape = tuple[int, int, int]
"""Height, width and channels of one image's activation."""


class Operator(ABC):
    """One operator: activations of shape (H, W, C) in, one out.

    Besides its output, ``forward`` returns the least that ``input_gradients`` needs. An operator with parameters
    is a description, in NumPy, until ``placed`` has brought it to a device.
    """

    kind: ClassVar[str]
    """Its name in messages."""

    @abstractmethod
    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's shape from the inputs'; raises ValueError when they do not fit."""

    @abstractmethod
    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output, a new array, and what else the input gradients need.

        ``output_is_kept`` says that the caller holds on to the output and will hand it to ``input_gradients``.
        """

    @abstractmethod
    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Any
    ) -> Sequence[Array]:
        """Return the gradient with respect to each input; ``output_gradient`` may be overwritten, or be one of them.

        No two of them share memory: each goes down another branch, where it may be overwritten.

        ``output`` is the forward pass's output where ``output_is_kept`` was set, else None.
        """

    def placed(self, device: Device, dtype: np.dtype[Any], algorithm: str) -> Operator:
        """Return the operator ready to run on a device.

        Parameters
        ----------
        dtype : of the activations there.
        algorithm : of convolutions, as the device's ``convolution`` takes it.
        """
        return self

    def joined(self, after: Operator) -> tuple[Operator, ...] | None:
        """Return what this and the only operator that reads its output are run as: one or two; None for themselves."""
        return None

    def astype(self, dtype: np.dtype[Any]) -> Self:
        """Return the operator with its parameters in ``dtype``."""
        return self

    # ---- what it says about itself ----

    @property
    def ends_in_relu(self) -> bool:
        """Whether the output is that of a ReLU."""
        return False

    def linear_part(self) -> Operator | None:
        """Return the operator without what makes it other than linear, or None where nothing is left."""
        return None

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return 0

    @property
    def parameters_held(self) -> int:
        """Numbers in memory for the parameters, when both directions have been run."""
        return 2 * self.parameters

    @property
    def parameters_made(self) -> int:
        """How many of ``parameters_held`` are in memory already, beside the parameters as they were read."""
        return 0

    def held_values(self, output: Shape, output_is_kept: bool) -> tuple[int, int]:
        """Return what stays until the backward pass: activations, the kept output included, and bytes besides them."""
        return (int(np.prod(output)) if output_is_kept else 0), 0

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return 0

    # ---- where it looks ----

    @property
    def strides(self) -> tuple[int, int]:
        """How many of the input's rows, and columns, one of the output's stands for."""
        return 1, 1

    def begins(self, shape: Shape) -> tuple[int, int]:
        """Return the rows of padding above an input of ``shape``, and the columns on its left."""
        return 0, 0

    def reach(self, axis: int, size: int, rows: tuple[int, int]) -> tuple[int, int]:
        """Return which of an input's rows (axis 0) or columns some of the output's are computed from.

        Parameters
        ----------
        size : of the input along the axis.
        rows : of the output, from the first to before the last; the result alike, that in padding included.
        """
        return rows

    def multiply_adds(self, output: Shape) -> int:
        """Return the multiplications of one forward pass, as the definition makes them; of convolutions only."""
        return 0
