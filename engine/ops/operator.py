"""What an operator is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Workers

Array = NDArray[Any]
Shape = tuple[int, int, int]
"""Height, width and channels of one image's activation."""


class Operator(Protocol):
    """One operator: activations of shape (H, W, C) in and out.

    What ``forward`` returns beside its output is the least that ``input_gradient`` needs.
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's shape; raises ValueError when the input's does not fit."""
        ...

    def forward(self, input: Array, output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output and what the input gradient needs beside the output.

        ``output_is_kept`` says that the caller holds on to the output and will hand it to ``input_gradient``.
        """
        ...

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any, workers: Workers) -> Array:
        """Return the gradient with respect to the input; ``output_gradient`` may be overwritten.

        ``output`` is the forward pass's output where ``output_is_kept`` was set, else None.
        """
        ...

    def astype(self, dtype: np.dtype[Any]) -> Operator:
        """Return the operator with its parameters in ``dtype``."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers it was trained to."""
        ...
