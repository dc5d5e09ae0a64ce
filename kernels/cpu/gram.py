"""Gram matrices of a layer's features and the product that their gradient needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Positions a strip: long enough for the matrix product, short enough to give every thread several.
_SHORTEST, _LONGEST, _STRIPS = 192, 2048, 8


def _strips(count: int) -> list[tuple[int, int]]:
    """Return the strips of so many positions, on any number of threads the same."""
    return strips(count, min(max(count // _STRIPS, _SHORTEST), _LONGEST))


def gram(threads: Threads, features: Array, *, factor: float = 1.0) -> Array:
    """Return ``factor`` F F^T, where row i of F holds channel i at all positions.

    The products are formed in the features' precision strip by strip and summed in double precision, in order. Plain
    transpose, also for complex numbers.

    Parameters
    ----------
    features : (H, W, C), C-contiguous.
    factor : a number.

    Returns
    -------
    (C, C), float64 or complex128.
    """
    rows = features.reshape(-1, features.shape[-1])

    def strip(bounds: tuple[int, int]) -> Array:
        part = rows[slice(*bounds)]
        # NumPy sees that both factors are the same array and calls the symmetric product: half of the work.
        return part.T @ part

    total = np.zeros((rows.shape[1], rows.shape[1]), np.result_type(rows.dtype, np.float64))
    for part in threads.map(strip, _strips(len(rows))):
        total += part
    return total if factor == 1 else total * factor


def gram_product(
    threads: Threads, matrix: Array, features: Array, *, factor: float = 1.0, add_to: Array | None = None
) -> Array:
    """Return ``factor`` S F for a symmetric ``matrix`` S, where row i of F holds channel i at all positions.

    Parameters
    ----------
    matrix : (C, C), symmetric.
    features : (H, W, C), C-contiguous.
    factor : a number, taken into the small matrix.
    add_to : (H, W, C), C-contiguous, to which the product is added in place instead of going to a new array.

    Returns
    -------
    (H, W, C), in the features' dtype.
    """
    rows = features.reshape(-1, features.shape[-1])
    right = (matrix * factor).T.astype(features.dtype, copy=False)
    product = threads.output(features.shape, features.dtype) if add_to is None else add_to
    flat = product.reshape(rows.shape, copy=False)

    def strip(bounds: tuple[int, int]) -> None:
        part = slice(*bounds)
        if add_to is None:
            np.matmul(rows[part], right, out=flat[part])
        else:
            flat[part] += rows[part] @ right

    threads.map(strip, _strips(len(rows)))
    return product
