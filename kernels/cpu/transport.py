"""Optimal transport of an activation's values to given ones, each channel by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Channels a strip: their values lie a cache line apart from those of the next.
_STRIP = 8


def transport_residual(
    threads: Threads, input: Array, steps: NDArray[np.float64], weights: NDArray[np.floating] | None = None
) -> tuple[Array, Array]:
    """Return what it costs to transport each channel's values to given ones, and how far each value is from its own.

    Along a line the cheapest way is in order: the part u of a channel's values that is lowest goes to the part u of the
    given ones that is. With P(u) and T(u) as the values at u,

        cost = integral_0^1 (P(u) - T(u))^2 du
        residual_k = w_k input_k - (W times the integral of T over the part that is position k's)

    w_k being the position's weight and W the sum of all. ``2 / W residual_k`` is the cost's derivative with respect to
    input_k: while values change places they are equal, so that the order counts as constant.

    Parameters
    ----------
    input : (H, W, C), C-contiguous; ordered by the real part.
    steps : (C, R), in ascending order, each for the same part of the whole.
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    cost : (C,), float64 or complex128.
    residual : (H, W, C), in the input's dtype.
    """
    rows = input.reshape(-1, input.shape[-1])
    positions, channels = rows.shape
    counted = None if weights is None else weights.reshape(-1).astype(np.float64)
    whole = positions if counted is None else counted.sum()
    residual = np.empty(input.shape, input.dtype)
    flat = residual.reshape(rows.shape, copy=False)
    evenly = _at_levels(np.arange(positions + 1), steps.shape[1]) if counted is None else None

    def strip(bounds: tuple[int, int]) -> list[Any]:
        block = rows[:, slice(*bounds)].T.copy()
        costs = []
        for channel, values in zip(range(*bounds), block, strict=True):
            order = np.argsort(values.real)
            own = values[order].astype(np.result_type(values.dtype, np.float64))
            share = 1.0 if counted is None else counted[order]
            levels = evenly or _at_levels(np.concatenate(([0.0], np.cumsum(share))), steps.shape[1])
            aim = whole * _integrals(steps[channel], *levels)
            away = share * own - aim
            costs.append((own * (away - aim)).sum() / whole + np.square(steps[channel]).mean())
            values[order] = away
        flat[:, slice(*bounds)] = block.T
        return costs

    return np.array([cost for part in threads.map(strip, strips(channels, _STRIP)) for cost in part]), residual


def _at_levels(summed: Array, count: int) -> tuple[Array, Array]:
    """Return in which of ``count`` equal steps sums of weights lie, from 0 to that of all, and how far into it."""
    at = summed * (count / summed[-1])
    step = np.minimum(at.astype(np.intp), count - 1)
    return step, at - step


def _integrals(steps: Array, step: Array, into: Array) -> Array:
    """Return the integral of a step function over 0..1 between each level and the next."""
    before = np.concatenate(([0.0], np.cumsum(steps)))
    return np.diff(before[step] + into * steps[step]) / len(steps)
