"""Distributions of values and optimal transport: the twin of ``kernels/cpu/transport.py``, computed on the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu import transport as _host
from kernels.cpu.threads import Threads
from kernels.cuda.launcher import Array, Launcher

Quantiles = NDArray[np.float64]


def quantiles(gpu: Launcher, input: Array, count: int, weights: Array | None = None) -> Quantiles:
    """Return each channel's quantile function in equal parts: of the values in ascending order, the mean of each part.

    The values are brought to the host and sorted there, by all of its cores.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, float32 or float16.
    count : of the parts, R.
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    (C, R), float64, in NumPy.
    """
    return _host.quantiles(_threads(), gpu.fetch(input), count, None if weights is None else gpu.fetch(weights))


def transport_residual(
    gpu: Launcher, input: Array, targets: Sequence[tuple[float, Quantiles]], weights: Array | None = None
) -> tuple[NDArray[Any], Array]:
    """Return the cost of transporting each channel's values to given distributions, and how far each value has to go.

    The values are brought to the host and sorted there, by all of its cores.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, float32 or float16.
    targets : of each its share, which sum to 1, and its quantile function in equal parts, (C, R), in NumPy.
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    cost : (C,), float64, in NumPy.
    residual : (H, W, C), in the input's dtype.
    """
    counted = None if weights is None else gpu.fetch(weights)
    cost, residual = _host.transport_residual(_threads(), gpu.fetch(input), targets, counted)
    return cost, gpu.put(residual)


@cache
def _threads() -> Threads:
    return Threads()
