"""Distributions of an activation's values, each channel by itself, and optimal transport to given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]
Quantiles = NDArray[np.float64]

# Channels a strip: enough to read them together, few enough to give every core some of 64.
_STRIP = 8


def quantiles(threads: Threads, input: Array, count: int, weights: NDArray[np.floating] | None = None) -> Quantiles:
    """Return each channel's quantile function in equal parts: of the values in ascending order, the mean of each part.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, real.
    count : of the parts, R.
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    (C, R), float64.
    """
    rows, counted, _ = _counted(input, weights)
    edges = np.linspace(0, 1, count + 1)

    def strip(bounds: tuple[int, int]) -> list[Array]:
        parts = []
        for values in _columns(rows.real, bounds):
            order = np.argsort(values)
            share = np.full(len(values), 1 / len(values)) if counted is None else counted[order] / counted.sum()
            level, integral = (_summed(one) for one in (share, share * values[order]))
            parts.append(np.diff(np.interp(edges, level / level[-1], integral)) * count)
        return parts

    return np.array([part for parts in threads.map(strip, strips(rows.shape[1], _STRIP)) for part in parts])


def transport_residual(
    threads: Threads,
    input: Array,
    targets: Sequence[tuple[float, Quantiles]],
    weights: NDArray[np.floating] | None = None,
) -> tuple[Array, Array]:
    """Return the cost of transporting each channel's values to given distributions, and how far each value has to go.

    In one dimension the cheapest transport keeps the order: the values between two levels of the one quantile function
    go to those between the same levels of the other. With P(u) the values', T(u) a target's and a its share,

        cost = sum of a integral_0^1 (P(u) - T(u))^2 du
        residual_k = w_k input_k - sum of a W (integral of T over the levels of position k)

    w_k being the position's weight and W the sum of all. ``2 / W residual_k`` is the cost's derivative with respect to
    input_k: where two values change places they are equal, so that their order counts as constant.

    Parameters
    ----------
    input : (H, W, C), C-contiguous; ordered by the real part.
    targets : of each its share, which sum to 1, and its quantile function in equal parts, (C, R).
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    cost : (C,), float64 or complex128.
    residual : (H, W, C), in the input's dtype.
    """
    rows, counted, places = _counted(input, weights)
    whole = len(rows) if counted is None else counted.sum()
    residual = np.zeros(input.shape, input.dtype)
    flat = residual.reshape(-1, input.shape[2], copy=False)
    evenly = np.arange(len(rows) + 1) / len(rows) if counted is None else None

    def strip(bounds: tuple[int, int]) -> list[Any]:
        costs, block = [], _columns(rows, bounds)
        for channel, values in zip(range(*bounds), block, strict=True):
            order = np.argsort(values.real)
            own = values[order].astype(np.result_type(values.dtype, np.float64))
            share = np.ones(1) if counted is None else counted[order]
            levels = _summed(share) / whole if evenly is None else evenly
            aim = whole * sum(part * _integrals(target[channel], levels) for part, target in targets)
            away = share * own - aim
            squares = sum(part * np.square(target[channel]).mean() for part, target in targets)
            costs.append((own * (away - aim)).sum() / whole + squares)
            values[order] = away
        flat[places, slice(*bounds)] = block.T
        return costs

    return np.array([cost for part in threads.map(strip, strips(rows.shape[1], _STRIP)) for cost in part]), residual


def transport_bytes(positions: int, itemsize: int, count: int) -> int:
    """Return the bytes of intermediate values for an activation of so many positions, on ``count`` threads."""
    of_channel = 5 * 8  # order, values, integrals, and what they are made of
    return count * positions * (_STRIP * itemsize + of_channel)


def _counted(input: Array, weights: NDArray[np.floating] | None) -> tuple[Array, Quantiles | None, Any]:
    """Return a row for each position that counts, its weight, and which positions these are."""
    rows = input.reshape(-1, input.shape[-1])
    if weights is None:
        return rows, None, slice(None)
    counted = weights.reshape(-1).astype(np.float64)
    places = np.flatnonzero(counted)
    return (rows, counted, slice(None)) if len(places) == len(rows) else (rows[places], counted[places], places)


def _columns(rows: Array, bounds: tuple[int, int]) -> Array:
    """Return some channels' values, a row each: an array of its own, in at least single precision."""
    return rows[:, slice(*bounds)].T.astype(np.result_type(rows.dtype, np.float32), order="C", copy=True)


def _summed(values: Array) -> Array:
    return np.concatenate(([0.0], np.cumsum(values)))


def _integrals(parts: Quantiles, levels: Array) -> Array:
    """Return the integral of a step function of equal parts over 0..1 between each level and the next."""
    at = levels * len(parts)
    part = np.minimum(at.astype(np.intp), len(parts) - 1)
    return np.diff(_summed(parts)[part] + (at - part) * parts[part]) / len(parts)
