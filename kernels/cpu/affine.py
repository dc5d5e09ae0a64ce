"""Scale and shift of each channel, and its input gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads

Array = NDArray[Any]


def affine(threads: Threads, input: Array, scale: Array, shift: Array) -> Array:
    """Return ``scale * input + shift``.

    Parameters
    ----------
    input : (H, W, C).
    scale, shift : (C,), of the input's dtype.
    """
    output = threads.output(input.shape, input.dtype)

    def row(y: int) -> None:
        np.multiply(input[y], scale, out=output[y])
        output[y] += shift

    threads.map(row, range(len(input)))
    return output


def affine_input_gradient(threads: Threads, output_gradient: Array, scale: Array) -> Array:
    """Return the gradient with respect to the input, ``scale * output_gradient``, of shape (H, W, C)."""
    gradient = threads.output(output_gradient.shape, output_gradient.dtype)

    def row(y: int) -> None:
        np.multiply(output_gradient[y], scale, out=gradient[y])

    threads.map(row, range(len(output_gradient)))
    return gradient
