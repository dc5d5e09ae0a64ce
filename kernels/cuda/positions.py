"""Sums over an activation's positions, and how much of it counts where; the twin of ``kernels/cpu/positions.py``."""

from __future__ import annotations

import numpy as np

from kernels.cuda.gemm import gemm
from kernels.cuda.launcher import Array, Launcher


def weigh_positions(gpu: Launcher, input: Array, weights: Array) -> Array:
    """Return all channels of each position times the position's weight, an array of its own.

    The operation is its own input gradient.

    Parameters
    ----------
    input : (H, W, C), float32 or float16.
    weights : (H, W), float32.
    """
    output = gpu.empty(input.shape, input.dtype)
    arguments = (input, weights, output, input.size, input.shape[2])
    gpu.launch_for_each("positions.cu", "weigh_positions", input.size, arguments, REAL=input.dtype)
    return output


def sum_positions(gpu: Launcher, features: Array, weights: Array) -> Array:
    """Return the weighted sum of the features over all positions.

    Parameters
    ----------
    features : (H, W, C), C-contiguous, float32 or float16.
    weights : (H, W), float32.

    Returns
    -------
    (C,), float32.
    """
    height, width, channels = features.shape
    rows, column = features.reshape(height * width, channels), weights.reshape(height * width, 1)
    total = gemm(gpu, column, rows, gpu.empty((1, channels), np.float32), transpose_a=True)
    return total.reshape(channels)


def sum_positions_input_gradient(gpu: Launcher, g: Array, weights: Array, *, add_to: Array) -> Array:
    """Add to an array, at each position, ``g`` times the position's weight; return the array.

    Parameters
    ----------
    g : (C,), float32, the gradient of the sum.
    weights : (H, W), float32.
    add_to : (H, W, C), C-contiguous.
    """
    height, width, channels = add_to.shape
    column, row = weights.reshape(height * width, 1), g.reshape(1, channels)
    gemm(gpu, column, row, add_to.reshape(height * width, channels), add=True)
    return add_to
