"""Weights of an activation's positions; the twin of ``kernels/cpu/positions.py``."""

from __future__ import annotations

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
