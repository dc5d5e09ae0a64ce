"""Differences and sums of squares, the array work of the losses; the twin of ``kernels/cpu/sums.py``.

A sum stays on the device, as an array of one number, until ``numbers`` fetches all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.cuda.geometry import THREADS, parts_of_sum
from kernels.cuda.runtime import Array, empty, launch, launch_for_each, to_host


def squared_distance(a: Array, b: Array, divisor: float) -> Array:
    """Return sum((a - b)^2) / divisor in double precision, for arrays of one shape and dtype."""
    return _sum("squared_distance", (a, b), divisor)


def square_sum(values: Array, divisor: float) -> Array:
    """Return sum(values^2) / divisor in double precision."""
    return _sum("square_sum", (values,), divisor)


def count_not_finite(values: Array) -> Array:
    """Return how many values are infinite or not a number."""
    return _sum("count_not_finite", (values,), 1.0)


def numbers(sums: Sequence[Array]) -> list[Any]:
    """Return what the functions above gave as Python numbers, after waiting for the device once."""
    if not sums:
        return []
    together = empty((len(sums),), np.float64)
    for index, one in enumerate(sums):
        launch("sums.cu", "place_number", (1, 1, 1), (1, 1, 1), (one, together, index), REAL=np.float32)
    return to_host(together).tolist()


def quotient_difference(a: Array, a_divisor: float, b: Array, b_divisor: float) -> Array:
    """Return ``a / a_divisor - b / b_divisor`` for float32 arrays of one shape."""
    output = empty(a.shape, np.float32)
    arguments = (a, a_divisor, b, b_divisor, output, a.size)
    launch_for_each("sums.cu", "quotient_difference", a.size, arguments, REAL=np.float32)
    return output


def weighted_difference(a: Array, b: Array, weight: float, *, add_to: Array | None = None) -> Array:
    """Return ``(a - b) * weight``; with ``add_to``, of their shape, it is added there in place."""
    target = empty(a.shape, a.dtype) if add_to is None else add_to
    arguments = (a, b, target, weight, int(add_to is not None), a.size)
    launch_for_each("sums.cu", "weighted_difference", a.size, arguments, REAL=a.dtype)
    return target


def _sum(name: str, arrays: tuple[Array, ...], divisor: float) -> Array:
    """Return one number on the device: the sum that the kernel ``name`` takes, over ``divisor``."""
    count = arrays[0].size
    blocks = parts_of_sum(count)
    parts, total = empty((blocks,), np.float64), empty((1,), np.float64)
    threads = (THREADS, 1, 1)
    launch("sums.cu", name, (blocks, 1, 1), threads, (*arrays, parts, count), REAL=arrays[0].dtype)
    launch("sums.cu", "sum_parts", (1, 1, 1), threads, (parts, total, blocks, divisor), REAL=arrays[0].dtype)
    return total
