"""Gram matrices of an activation and itself shifted, and their gradient's product: the twin of ``cpu/shifted.py``."""

from __future__ import annotations

import numpy as np

from kernels.cuda.gemm import gemm
from kernels.cuda.launcher import Array, Launcher
from kernels.cuda.positions import weigh_positions


def shifted_gram(gpu: Launcher, features: Array, offset: int, weights: Array) -> Array:
    """Return ``sum_k w_k F_k F_(k + offset)^T``, k going over the positions row by row.

    Parameters
    ----------
    features : (H, W, C), C-contiguous, float32 or float16.
    offset : from the one position of a pair to the other, 1 to H W - 1: 1 is the next column, W the next row.
    weights : (H, W), float32, of each pair, where its first position is; 0 for what is no pair. The last ``offset`` are
        not looked at.

    Returns
    -------
    (C, C), float32.
    """
    first, second = _rows(weigh_positions(gpu, features, weights)), _rows(features)
    channels = features.shape[2]
    result = gpu.empty((channels, channels), np.float32)
    return gemm(gpu, first[: len(first) - offset], second[offset:], result, transpose_a=True)


def shifted_product(
    gpu: Launcher, matrix: Array, features: Array, offset: int, weights: Array, *, add_to: Array
) -> Array:
    """Add ``w_k D F_(k + offset) + w_(k - offset) D^T F_(k - offset)`` to an array at each position k, and return it.

    That is the input gradient of ``shifted_gram``, D being the gradient of what it returns.

    Parameters
    ----------
    matrix : (C, C), float32, D.
    features, offset, weights : as for ``shifted_gram``.
    add_to : (H, W, C), C-contiguous.
    """
    transposed = gpu.put(np.ascontiguousarray(gpu.fetch(matrix).T))
    rows, flat = _rows(features), _rows(add_to)
    pairs = len(rows) - offset
    of_pairs = weights.reshape(len(rows), 1)[:pairs]
    seen = weigh_positions(gpu, rows[offset:].reshape(pairs, 1, rows.shape[1]), of_pairs)
    gemm(gpu, _rows(seen), transposed, flat[:pairs], add=True)
    gemm(gpu, _rows(weigh_positions(gpu, features, weights))[:pairs], matrix, flat[offset:], add=True)
    return add_to


def _rows(features: Array) -> Array:
    height, width, channels = features.shape
    return features.reshape(height * width, channels)
