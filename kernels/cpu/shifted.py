"""Gram matrices of an activation and itself shifted, and the product of their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.positions import rows_of_positions
from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Positions a strip: as for Gram matrices, see gram.py.
_STRIP = 2048


def shifted_gram(threads: Threads, features: Array, offset: int, weights: NDArray[np.floating]) -> Array:
    """Return ``sum_k w_k F_k F_(k + offset)^T``, k going over the positions row by row.

    The products are formed in the features' precision strip by strip and summed in double precision, in order.

    Parameters
    ----------
    features : (H, W, C), C-contiguous.
    offset : from the one position of a pair to the other, 1 to H W - 1: 1 is the next column, W the next row.
    weights : (H, W), of each pair, where its first position is; 0 for what is no pair. The last ``offset`` are not
        looked at.

    Returns
    -------
    (C, C), float64 or complex128.
    """
    rows, m = rows_of_positions(features, weights)
    column = m[:, None]

    def strip(bounds: tuple[int, int]) -> Array:
        start, stop = bounds
        weighted = rows[start:stop] * column[start:stop]
        return weighted.T @ rows[start + offset : stop + offset]

    total = np.zeros((rows.shape[1], rows.shape[1]), np.result_type(rows.dtype, np.float64))
    for part in threads.map(strip, strips(len(rows) - offset, _STRIP)):
        total += part
    return total


def shifted_product(
    threads: Threads, matrix: Array, features: Array, offset: int, weights: NDArray[np.floating], *, add_to: Array
) -> Array:
    """Add ``w_k D F_(k + offset) + w_(k - offset) D^T F_(k - offset)`` to an array at each position k, and return it.

    That is the input gradient of ``shifted_gram``, D being the gradient of what it returns.

    Parameters
    ----------
    matrix : (C, C), D.
    features, offset, weights : as for ``shifted_gram``.
    add_to : (H, W, C), C-contiguous.
    """
    rows, m = rows_of_positions(features, weights)
    column = m[:, None]
    flat = add_to.reshape(rows.shape, copy=False)
    matrix = matrix.astype(rows.dtype, copy=False)

    def first(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        flat[start:stop] += (rows[start + offset : stop + offset] * column[start:stop]) @ matrix.T

    def second(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        flat[start + offset : stop + offset] += (rows[start:stop] * column[start:stop]) @ matrix

    # One after the other: both write to most positions.
    for strip in (first, second):
        threads.map(strip, strips(len(rows) - offset, _STRIP))
    return add_to
