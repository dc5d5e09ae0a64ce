"""Differences and sums of squares, the array work of the losses; the counterpart of ``kernels/cpu/reductions.py``.

A sum stays on the device, as a ``Sum``, until ``numbers`` puts all of them together and fetches them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.cuda.geometry import THREADS, parts_of_sum
from kernels.cuda.launcher import Array, Launcher


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum on the device that has yet to be put together from parts.

    Parameters
    ----------
    parts : (n,), float64.
    divisor : of the whole.
    """

    parts: Array
    divisor: float


def squared_distance(gpu: Launcher, a: Array, b: Array, divisor: float) -> Any:
    """Return sum((a - b)^2) / divisor in double precision, for arrays of one shape and dtype."""
    return summed(gpu, "reductions.cu", "squared_distance", a.size, (a, b), (a.size,), divisor, REAL=a.dtype)


def quotient_distance(gpu: Launcher, a: Array, a_divisor: float, b: Array, b_divisor: float, divisor: float) -> Any:
    """Return sum((a / a_divisor - b / b_divisor)^2) / divisor for float32 arrays of one shape."""
    given = (a, a_divisor, b, b_divisor)
    return summed(gpu, "reductions.cu", "quotient_distance", a.size, given, (a.size,), divisor, REAL=np.float32)


def count_not_finite(gpu: Launcher, values: Array) -> Any:
    """Return how many values are infinite or not a number."""
    given, count = (values,), values.size
    return summed(gpu, "reductions.cu", "count_not_finite", count, given, (count,), 1.0, REAL=values.dtype)


def number(gpu: Launcher, value: Any) -> Sum:
    """Return a number that was computed elsewhere as the functions above return theirs.

    Parameters
    ----------
    value : a number, or an array of one on the device, float64.
    """
    return Sum(value.reshape(1) if gpu.holds(value) else gpu.put(np.array([value], np.float64)), 1.0)


def numbers(gpu: Launcher, sums: Sequence[Any]) -> list[Any]:
    """Return what the functions above gave as Python numbers, after waiting for the device once.

    Parameters
    ----------
    sums : from the functions above, or what ``number`` takes: a term of the user's own knows no more.
    """
    if not sums:
        return []
    together = gpu.empty((len(sums),), np.float64)
    for index, given in enumerate(sums):
        one = given if isinstance(given, Sum) else number(gpu, given)
        arguments = (one.parts, together, index, one.parts.size, one.divisor)
        gpu.launch("reductions.cu", "sum_parts", (1, 1, 1), (THREADS, 1, 1), arguments, REAL=np.float32)
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


def summed(
    gpu: Launcher,
    file: str,
    name: str,
    count: int,
    before: Sequence[Any],
    after: Sequence[Any],
    divisor: float,
    **types: np.dtype[Any] | type,
) -> Sum:
    """Launch a kernel whose blocks leave a part each of a sum over ``count`` values, and return the sum.

    Parameters
    ----------
    file, name, types : as for ``Launcher.launch``.
    before, after : its arguments before and after the array of the parts.
    divisor : of the whole.
    """
    parts = gpu.empty((parts_of_sum(count),), np.float64)
    gpu.launch(file, name, (parts.size, 1, 1), (THREADS, 1, 1), (*before, parts, *after), 0, **types)
    return Sum(parts, divisor)
