"""Differences and sums of squares, the array work of the losses; the counterpart of ``kernels/cpu/reductions.py``.

A sum stays on the device, as an array of one number, until ``numbers`` fetches all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.cuda.geometry import THREADS, parts_of_sum
from kernels.cuda.launcher import Array, Launcher


def squared_distance(gpu: Launcher, a: Array, b: Array, divisor: float) -> Array:
    """Return sum((a - b)^2) / divisor in double precision, for arrays of one shape and dtype."""
    return _sum(gpu, "squared_distance", (a, b), divisor)


def square_sum(gpu: Launcher, values: Array, divisor: float) -> Array:
    """Return sum(values^2) / divisor in double precision."""
    return _sum(gpu, "square_sum", (values,), divisor)


def count_not_finite(gpu: Launcher, values: Array) -> Array:
    """Return how many values are infinite or not a number."""
    return _sum(gpu, "count_not_finite", (values,), 1.0)


def numbers(gpu: Launcher, sums: Sequence[Array]) -> list[Any]:
    """Return what the functions above gave as Python numbers, after waiting for the device once."""
    if not sums:
        return []
    together = gpu.empty((len(sums),), np.float64)
    for index, one in enumerate(sums):
        gpu.launch("reductions.cu", "place_number", (1, 1, 1), (1, 1, 1), (one, together, index), REAL=np.float32)
    return gpu.fetch(together).tolist()


def quotient_difference(gpu: Launcher, a: Array, a_divisor: float, b: Array, b_divisor: float) -> Array:
    """Return ``a / a_divisor - b / b_divisor`` for float32 arrays of one shape."""
    output = gpu.empty(a.shape, np.float32)
    arguments = (a, a_divisor, b, b_divisor, output, a.size)
    gpu.launch_for_each("reductions.cu", "quotient_difference", a.size, arguments, REAL=np.float32)
    return output


def weighted_difference(gpu: Launcher, a: Array, b: Array, weight: float, *, add_to: Array | None = None) -> Array:
    """Return ``(a - b) * weight``; with ``add_to``, of their shape, it is added there in place."""
    target = gpu.empty(a.shape, a.dtype) if add_to is None else add_to
    arguments = (a, b, target, weight, int(add_to is not None), a.size)
    gpu.launch_for_each("reductions.cu", "weighted_difference", a.size, arguments, REAL=a.dtype)
    return target


def _sum(gpu: Launcher, name: str, arrays: tuple[Array, ...], divisor: float) -> Array:
    """Return one number on the device: the sum that the kernel ``name`` takes, over ``divisor``."""
    count = arrays[0].size
    blocks = parts_of_sum(count)
    parts, total = gpu.empty((blocks,), np.float64), gpu.empty((1,), np.float64)
    threads = (THREADS, 1, 1)
    gpu.launch("reductions.cu", name, (blocks, 1, 1), threads, (*arrays, parts, count), REAL=arrays[0].dtype)
    gpu.launch("reductions.cu", "sum_parts", (1, 1, 1), threads, (parts, total, blocks, divisor), REAL=arrays[0].dtype)
    return total
