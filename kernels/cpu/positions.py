"""Weights of an activation's positions: how much of it counts where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads

Array = NDArray[Any]


def weigh_positions(threads: Threads, input: Array, weights: NDArray[np.floating]) -> Array:
    """Return all channels of each position times the position's weight, an array of its own.

    The operation is its own input gradient.

    Parameters
    ----------
    input : (H, W, C).
    weights : (H, W).
    """
    output = np.empty(input.shape, input.dtype)
    factors = weights.astype(input.real.dtype)[..., None]

    def row(y: int) -> None:
        np.multiply(input[y], factors[y], out=output[y])

    threads.map(row, range(len(input)))
    return output
