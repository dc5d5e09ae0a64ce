"""What L-BFGS with bounds needs of the stored vectors; the counterpart of ``kernels/cpu/lbfgs.py``.

The sums stay on the device, so that they are fetched together with the value of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import THREADS
from kernels.cuda.launcher import Array, Launcher

STRIP = 4096
"""Values a block of lbfgs.cu owns."""


def line_step(
    gpu: Launcher,
    image: Array,
    direction: Array,
    length: float,
    bounds: tuple[float, float],
) -> Array:
    """Return ``image + length * direction``, clipped to the bounds.

    Parameters
    ----------
    image : float64.
    direction : (size,), float32.
    """
    output = gpu.empty(image.shape, np.float64)
    gpu.launch_for_each("lbfgs.cu", "line_step", image.size, (image, direction, output, image.size, length, *bounds))
    return output


def lbfgs_store(
    gpu: Launcher,
    new: tuple[Array, Array],
    old: tuple[Array, Array],
    vectors: Array,
    old_free: Array | None,
    rows: tuple[int, int],
    bounds: tuple[float, float],
    output: Array,
) -> tuple[Array, Array]:
    """Store a step, the change of the gradient and the gradient; find which values are free to move.

    Parameters
    ----------
    new, old : image and gradient, float64.
    vectors : (stored rows, size), float32, two or three rows of which are written.
    old_free : (size,), uint8; None where all have been free.
    rows : where the step goes (the change of the gradient goes below), or -1 to store neither; where the gradient goes.
    bounds : lowest and highest value.
    output : (3,), float64: gets <old gradient, step>, <new gradient, step> and the largest element of the projected
        gradient.

    Returns
    -------
    free, changed : (size,), uint8: which values are free, and 1 or 255 where one has become so or no longer is.
    """
    size = new[0].size
    free, changed = gpu.empty((size,), np.uint8), gpu.empty((size,), np.uint8)
    parts = gpu.empty((_blocks(size), 3), np.float64)
    was_free = gpu.put(np.ones(size, np.uint8)) if old_free is None else old_free
    arguments = (*new, *old, vectors, was_free, free, changed, parts, size, *rows, *bounds)
    gpu.launch("lbfgs.cu", "lbfgs_store", (_blocks(size), 1, 1), (THREADS, 1, 1), arguments)
    gpu.launch_for_each("lbfgs.cu", "sum_columns", 3, (parts, output, 3, _blocks(size), 1))
    return free, changed


def lbfgs_products(
    gpu: Launcher,
    vectors: Array,
    listed: Sequence[int],
    free: Array,
    changed: Array,
    rows: tuple[int, int],
    output: Array,
) -> None:
    """Take the inner products that follow ``lbfgs_store``.

    Parameters
    ----------
    vectors : (stored rows, size), float32.
    listed : the n rows in use.
    free, changed : from ``lbfgs_store``.
    rows : as for ``lbfgs_store``; without a step, what concerns it is the gradient's.
    output : (5 n + n^2,), float64. For each listed row r: <s, r> and <y, r>, and over the free values <s, r>, <y, r>
        and <g, r>; then, for each two listed rows, the change of their product over the free values.
    """
    size, count, listed_rows = free.size, len(listed), gpu.put(np.array(listed, np.int32))
    blocks = _blocks(size)
    for name, columns, first, given, last in (
        ("lbfgs_products", 5 * count, 0, free, rows),
        ("lbfgs_changed", count * count, 5 * count, changed, ()),
    ):
        parts = gpu.empty((blocks, columns), np.float64)
        arguments = (vectors, listed_rows, given, parts, size, count, *last)
        gpu.launch("lbfgs.cu", name, (blocks, 1, 1), (THREADS, 1, 1), arguments)
        target = output[first : first + columns]
        gpu.launch_for_each("lbfgs.cu", "sum_columns", columns, (parts, target, columns, blocks, 0))


def lbfgs_direction(
    gpu: Launcher,
    vectors: Array,
    listed: Sequence[int],
    coefficients: NDArray[np.float64],
    free: Array,
) -> Array:
    """Return the combination of the listed rows, (size,), float32; 0 where a value is not free.

    Parameters
    ----------
    vectors : (stored rows, size), float32.
    listed, coefficients : the n rows and the factor of each.
    free : (size,), uint8.
    """
    direction = gpu.empty((free.size,), np.float32)
    # One factor for every row, so that no list of rows has to go to the GPU; rows with none are not read.
    factors = np.zeros(vectors.shape[0], np.float32)
    factors[list(listed)] = coefficients
    arguments = (vectors, gpu.put(factors), free, direction, free.size, factors.size)
    gpu.launch_for_each("lbfgs.cu", "lbfgs_direction", free.size, arguments)
    return direction


def _blocks(size: int) -> int:
    return -(-size // STRIP)
