"""Optimal transport of an activation's values to given ones: the twin of ``kernels/cpu/transport.py``, on the host."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu import transport as _host
from kernels.cpu.threads import Threads
from kernels.cuda.launcher import Array, Launcher


def transport_residual(
    gpu: Launcher, input: Array, steps: NDArray[np.float64], weights: Array | None = None
) -> tuple[NDArray[Any], Array]:
    """Return what it costs to transport each channel's values to given ones, and how far each value is from its own.

    The values are brought to the host and sorted there, by all of its cores.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, float32 or float16.
    steps : (C, R), in NumPy, in ascending order, each for the same part of the whole.
    weights : (H, W), of the positions; None counts each once.

    Returns
    -------
    cost : (C,), float64, in NumPy.
    residual : (H, W, C), in the input's dtype.
    """
    counted = None if weights is None else gpu.fetch(weights)
    cost, residual = _host.transport_residual(_threads(), gpu.fetch(input), steps, counted)
    return cost, gpu.put(residual)


@cache
def _threads() -> Threads:
    return Threads()
