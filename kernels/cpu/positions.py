"""Sums over an activation's positions, and how much of it counts where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Positions a strip: as for Gram matrices, see gram.py.
_STRIP = 2048


def weigh_positions(threads: Threads, input: Array, weights: NDArray[np.floating]) -> Array:
    """Return all channels of each position times the position's weight, an array of its own.

    The operation is its own input gradient.

    Parameters
    ----------
    input : (H, W, C).
    weights : (H, W).
    """
    output = threads.output(input.shape, input.dtype)
    factors = weights.astype(input.real.dtype)[..., None]

    def row(y: int) -> None:
        np.multiply(input[y], factors[y], out=output[y])

    threads.map(row, range(len(input)))
    return output


def sum_positions(threads: Threads, features: Array, weights: NDArray[np.floating]) -> Array:
    """Return the weighted sum of the features over all positions.

    The products are formed in the features' precision strip by strip and summed in double precision, in order.

    Parameters
    ----------
    features : (H, W, C), C-contiguous.
    weights : (H, W).

    Returns
    -------
    (C,), float64 or complex128.
    """
    rows, column = rows_of_positions(features, weights)
    total = np.zeros(rows.shape[1], np.result_type(rows.dtype, np.float64))
    for part in threads.map(lambda bounds: column[slice(*bounds)] @ rows[slice(*bounds)], strips(len(rows), _STRIP)):
        total += part
    return total


def sum_positions_input_gradient(threads: Threads, g: Array, weights: NDArray[np.floating], *, add_to: Array) -> Array:
    """Add to an array, at each position, ``g`` times the position's weight; return the array.

    Parameters
    ----------
    g : (C,), the gradient of the sum.
    weights : (H, W).
    add_to : (H, W, C), C-contiguous.
    """
    rows, column = rows_of_positions(add_to, weights)
    g = g.astype(rows.dtype, copy=False)

    def strip(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        rows[part] += column[part, None] * g

    threads.map(strip, strips(len(rows), _STRIP))
    return add_to


def rows_of_positions(features: Array, weights: NDArray[np.floating]) -> tuple[Array, Array]:
    """Return a row for each position, and its weight in their precision."""
    rows = features.reshape(-1, features.shape[-1], copy=False)
    return rows, weights.reshape(-1).astype(rows.real.dtype, copy=False)
