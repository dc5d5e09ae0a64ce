"""Differences and sums of squares: the array work of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def squared_distance(a: Array, b: Array, divisor: float) -> Any:
    """Return sum((a - b)^2) / divisor in double precision, for arrays of one shape and dtype."""
    total: Any = 0.0
    for y in range(len(a)):  # row by row: no array of the whole size is made
        difference = a[y].astype(np.result_type(a.dtype, np.float64)) - b[y]
        total += (difference * difference).sum().item()
    return total / divisor


def quotient_distance(a: Array, a_divisor: float, b: Array, b_divisor: float, divisor: float) -> Any:
    """Return sum((a / a_divisor - b / b_divisor)^2) / divisor for arrays of one shape."""
    difference = quotient_difference(a, a_divisor, b, b_divisor)
    return (difference * difference).sum().item() / divisor


def count_not_finite(values: Array) -> int:
    """Return how many values are infinite or not a number."""
    return values.size - int(np.count_nonzero(np.isfinite(values)))


def number(value: Any) -> Any:
    """Return a number that was computed elsewhere as the functions above return theirs: as it is."""
    return value


def numbers(sums: Sequence[Any]) -> list[Any]:
    """Return the results of the functions above as Python numbers; on the CPU they already are."""
    return list(sums)


def quotient_difference(a: Array, a_divisor: float, b: Array, b_divisor: float) -> Array:
    """Return ``a / a_divisor - b / b_divisor`` for arrays of one shape."""
    return a / a_divisor - b / b_divisor


def weighted_difference(a: Array, b: Array, weight: float, *, add_to: Array | None = None) -> Array:
    """Return ``(a - b) * weight``; with ``add_to``, of their shape, it is added there in place."""
    target = np.empty(a.shape, a.dtype) if add_to is None else add_to
    for y in range(len(a)):  # row by row, in cache
        difference = (a[y] - b[y]) * np.asarray(weight, a.real.dtype)
        target[y] = difference if add_to is None else target[y] + difference
    return target
