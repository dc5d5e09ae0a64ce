"""Gram matrices of a layer's features and the product of their gradient; the counterpart of ``kernels/cpu/gram.py``."""

from __future__ import annotations

import numpy as np

from kernels.cuda.gemm import gemm
from kernels.cuda.launcher import Array, Launcher


def gram(gpu: Launcher, features: Array, *, factor: float = 1.0) -> Array:
    """Return ``factor`` F F^T, where row i of F holds channel i at all positions.

    Parameters
    ----------
    features : (H, W, C), C-contiguous, float32 or float16.
    factor : a number.

    Returns
    -------
    (C, C), float32: 16 bits would overflow.
    """
    height, width, channels = features.shape
    rows = features.reshape(height * width, channels)
    return gemm(gpu, rows, rows, gpu.empty((channels, channels), np.float32), transpose_a=True, factor=factor)


def gram_product(
    gpu: Launcher, matrix: Array, features: Array, *, factor: float = 1.0, add_to: Array | None = None
) -> Array:
    """Return ``factor`` S F for a symmetric ``matrix`` S, where row i of F holds channel i at all positions.

    Parameters
    ----------
    matrix : (C, C), symmetric, float32.
    features : (H, W, C), C-contiguous.
    factor : a number.
    add_to : (H, W, C), C-contiguous, to which the product is added in place instead of going to a new array.

    Returns
    -------
    (H, W, C), in the features' dtype.
    """
    height, width, channels = features.shape
    result = gpu.empty(features.shape, features.dtype) if add_to is None else add_to
    rows, flat = (array.reshape(height * width, channels) for array in (features, result))
    gemm(gpu, rows, matrix, flat, factor=factor, add=add_to is not None)
    return result
