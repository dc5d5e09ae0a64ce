"""Steps of the optimisers, in double precision; the twin of ``kernels/cpu/steps.py``, and the L-BFGS's array work."""

from __future__ import annotations

import numpy as np

from kernels.cpu.steps import BETA_1, BETA_2, EPSILON
from kernels.cuda.geometry import THREADS
from kernels.cuda.runtime import Array, empty, launch, launch_for_each

STRIP = 4096
"""Values a block of lbfgs.cu owns."""


def scaled(values: Array, factor: float, *, out: Array | None = None) -> Array:
    """Return ``values * factor``, written to ``out`` if that is given."""
    output = empty(values.shape, np.float64) if out is None else out
    launch_for_each("steps.cu", "scaled", values.size, (values, output, values.size, factor))
    return output


def zeros(shape: tuple[int, ...]) -> Array:
    """Return an array of zeros."""
    output = empty(shape, np.float64)
    launch_for_each("steps.cu", "fill", output.size, (output, output.size, 0.0))
    return output


def adam_step(
    image: Array, gradient: Array, mean: Array, square: Array, t: int, rate: float, bounds: tuple[float, float]
) -> Array:
    """Return the image after step ``t`` of Adam (Kingma and Ba 2015, algorithm 1), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape, float64.
    mean, square : the running means of gradient and squared gradient, which are brought up to date in place.
    t : number of the step, from 1.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    output = empty(image.shape, np.float64)
    numbers = (BETA_1, BETA_2, 1 - BETA_1**t, 1 - BETA_2**t, EPSILON, rate, *bounds)
    arguments = (image, gradient, mean, square, output, image.size, *numbers)
    launch_for_each("steps.cu", "adam_step", image.size, arguments)
    return output


def momentum_step(
    image: Array, gradient: Array, velocity: Array, momentum: float, rate: float, bounds: tuple[float, float]
) -> Array:
    """Return the image after a step of gradient descent with momentum (Polyak 1964), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape, float64.
    velocity : the last step, which is replaced by this one in place.
    momentum : the part of the last step that is kept.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    output = empty(image.shape, np.float64)
    arguments = (image, gradient, velocity, output, image.size, momentum, rate, *bounds)
    launch_for_each("steps.cu", "momentum_step", image.size, arguments)
    return output


def line_step(image: Array, direction: Array, length: float, bounds: tuple[float, float]) -> Array:
    """Return ``image + length * direction``, clipped to the bounds.

    Parameters
    ----------
    image : float64.
    direction : of its shape, float32.
    """
    output = empty(image.shape, np.float64)
    launch_for_each("steps.cu", "line_step", image.size, (image, direction, output, image.size, length, *bounds))
    return output


def lbfgs_store(
    new: tuple[Array, Array],
    old: tuple[Array, Array],
    vectors: Array,
    old_free: Array,
    rows: tuple[int, int],
    bounds: tuple[float, float],
    output: Array,
) -> tuple[Array, Array]:
    """Store a step, the change of the gradient and the gradient; find which values are free to move.

    Parameters
    ----------
    new, old : image and gradient, float64.
    vectors : (stored rows, size), float32, two or three rows of which are written.
    old_free : (size,), uint8.
    rows : where the step goes (the change of the gradient goes below), or -1 to store neither; where the gradient goes.
    bounds : lowest and highest value.
    output : (3,), float64: gets <old gradient, step>, <new gradient, step> and the largest element of the projected
        gradient.

    Returns
    -------
    free, changed : (size,), uint8: which values are free, and 1 or 255 where one has become so or no longer is.
    """
    size = new[0].size
    free, changed = empty((size,), np.uint8), empty((size,), np.uint8)
    parts = empty((_blocks(size), 3), np.float64)
    arguments = (*new, *old, vectors, old_free, free, changed, parts, size, *rows, *bounds)
    launch("lbfgs.cu", "lbfgs_store", (_blocks(size), 1, 1), (THREADS, 1, 1), arguments)
    launch_for_each("lbfgs.cu", "sum_columns", 3, (parts, output, 3, _blocks(size), 1))
    return free, changed


def lbfgs_products(
    vectors: Array, listed: Array, free: Array, changed: Array, rows: tuple[int, int], output: Array
) -> None:
    """Take the inner products that follow ``lbfgs_store``.

    Parameters
    ----------
    vectors : (stored rows, size), float32.
    listed : (n,), int32: the rows in use.
    free, changed : from ``lbfgs_store``.
    rows : as for ``lbfgs_store``; without a step, what concerns it is the gradient's.
    output : (5 n + n^2,), float64. For each listed row r: <s, r> and <y, r>, and over the free values <s, r>, <y, r>
        and <g, r>; then, for each two listed rows, the change of their product over the free values.
    """
    size, count = free.size, listed.size
    blocks = _blocks(size)
    for name, columns, first, given, last in (
        ("lbfgs_products", 5 * count, 0, free, rows),
        ("lbfgs_changed", count * count, 5 * count, changed, ()),
    ):
        parts = empty((blocks, columns), np.float64)
        arguments = (vectors, listed, given, parts, size, count, *last)
        launch("lbfgs.cu", name, (blocks, 1, 1), (THREADS, 1, 1), arguments)
        target = output[first : first + columns]
        launch_for_each("lbfgs.cu", "sum_columns", columns, (parts, target, columns, blocks, 0))


def lbfgs_direction(vectors: Array, listed: Array, coefficients: Array, free: Array) -> Array:
    """Return the combination of the listed rows, (size,), float32; 0 where a value is not free.

    Parameters
    ----------
    vectors : (stored rows, size), float32.
    listed, coefficients : (n,), int32 and float32.
    free : (size,), uint8.
    """
    direction = empty((free.size,), np.float32)
    arguments = (vectors, listed, coefficients, free, direction, free.size, listed.size)
    launch_for_each("lbfgs.cu", "lbfgs_direction", free.size, arguments)
    return direction


def _blocks(size: int) -> int:
    return -(-size // STRIP)
