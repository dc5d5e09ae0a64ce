"""What L-BFGS with bounds needs of the stored vectors; the counterpart of ``kernels/cpu/lbfgs.py``.

The sums stay on the device, so that they are fetched together with the value of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import THREADS
from kernels.cuda.launcher import Array, Launcher
from kernels.grids import Grids

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
    grids: Grids,
    rows: tuple[int, int],
    bounds: tuple[float, float],
    output: Array,
) -> Array:
    """Store a step, the change of the gradient and the gradient of the values that are free to move.

    Parameters
    ----------
    new, old : image and gradient, float64.
    vectors : (stored rows, grids.length), float32, two or three rows of which are written.
    grids : of the image.
    rows : where the step goes (the change of the gradient goes below), or -1 to store neither; where the gradient goes,
        0 where a value is not free.
    bounds : lowest and highest value.
    output : (3,), float64: gets <old gradient, step>, <new gradient, step> and the largest element of the projected
        gradient.

    Returns
    -------
    (size,), uint8: which values are free.
    """
    size = grids.size
    free, parts = gpu.empty((size,), np.uint8), gpu.empty((_strips(size), 3), np.float64)
    arguments = (*new, *old, vectors, free, parts, size, grids.length, *rows, *bounds)
    gpu.launch("lbfgs.cu", "lbfgs_store", (_strips(size), 1, 1), (THREADS, 1, 1), arguments)
    gpu.launch_for_each("lbfgs.cu", "sum_columns", 3, (parts, output, 3, _strips(size), 1))
    for number, level in enumerate(grids.levels[1:], 1):
        below, sides = grids.levels[number - 1], (1, *grids.sides)[number - 1 : number + 1]
        places = (below.start, level.start, level.values, grids.length, *grids.shape, *sides)
        gpu.launch_for_each("lbfgs.cu", "fill_nodes", 3 * level.values, (vectors, *places, *rows))
    return free


def lbfgs_products(
    gpu: Launcher,
    vectors: Array,
    grids: Grids,
    listed: Sequence[int],
    rows: tuple[int, int],
    output: Array,
) -> None:
    """Take the inner products that follow ``lbfgs_store``.

    Parameters
    ----------
    vectors, grids, rows : as for ``lbfgs_store``; without a step, what concerns it is the gradient's.
    listed : the n rows in use.
    output : (levels * n * 3,), float64, of the values and of each grid's nodes: for each listed row r <s, r>, <y, r>
        and <g, r>.
    """
    listed_rows, columns = gpu.put(np.array(listed, np.int32)), 3 * len(listed)
    for number, level in enumerate(grids.levels):
        count = _strips(level.values)
        parts = gpu.empty((count, columns), np.float64)
        arguments = (vectors, listed_rows, parts, level.start, level.values, grids.length, len(listed), *rows)
        gpu.launch("lbfgs.cu", "lbfgs_products", (count, 1, 1), (THREADS, 1, 1), arguments)
        target = output[number * columns : (number + 1) * columns]
        gpu.launch_for_each("lbfgs.cu", "sum_columns", columns, (parts, target, columns, count, 0))


def lbfgs_direction(
    gpu: Launcher,
    vectors: Array,
    grids: Grids,
    listed: Sequence[int],
    coefficients: NDArray[np.float64],
    free: Array,
) -> Array:
    """Return a combination of the listed rows and of their means by the grids, (size,), float32.

    Parameters
    ----------
    vectors, grids : as for ``lbfgs_store``.
    listed : n rows.
    coefficients : (levels, n): the factor of each row, and those of its means by each of the grids.
    free : (size,), uint8; the result is 0 where a value is not free.
    """
    # A factor for every row, so that no list of rows has to go to the GPU; rows with none are not read.
    factors = np.zeros((len(coefficients), vectors.shape[0]), np.float32)
    factors[:, list(listed)] = coefficients
    shared = (gpu.put(factors), vectors.shape[0], grids.length)
    height, width, channels = grids.shape if grids.sides else (1, grids.size, 1)
    means, side = vectors, 0  # at the nodes above, where there are any
    for number, level in reversed(list(enumerate(grids.levels[1:], 1))):
        larger, larger_side, side = means, side, grids.sides[number - 1]
        means = gpu.empty((level.values,), np.float32)
        place = (level.start, level.values, number, height, width, channels, side, larger_side)
        gpu.launch_for_each("lbfgs.cu", "means_at_nodes", level.values, (vectors, *shared, larger, means, *place))
    direction = gpu.empty((grids.size,), np.float32)
    arguments = (vectors, *shared, means, free, direction, grids.size, width, channels, side)
    gpu.launch_for_each("lbfgs.cu", "lbfgs_direction", grids.size, arguments)
    return direction


def _strips(size: int) -> int:
    return -(-size // STRIP)
