"""Smooth random fields over a picture, and how to look one up, blur it and make it smaller.

A field is drawn on a lattice that knows nothing of pixels. The same seed therefore gives the same picture at another
size, only finer or coarser.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""Values over a picture, shape (H, W), or (H, W, 3) for colours; float32 where it is as large as the picture."""

SMALLEST_SIDE = 64
"""The shortest side in pixels that a picture may have: below it nothing could be recognised."""

# Standard deviation of a cubic B-spline whose coefficients are independent and standard normal: the mean over a cell of
# the sum of its squared weights, in both directions.
_SPLINE_DEVIATION = 151 / 315


def check_size(height: int, width: int) -> None:
    """Raise ValueError unless a picture of ``height`` x ``width`` pixels can be drawn."""
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(f"cannot draw {width}x{height} pixels, each side needs at least {SMALLEST_SIDE}")


def relative_size(height: int, width: int) -> float:
    """Return how large strokes and blades have to be, relative to those in a picture of 640x480 pixels."""
    return math.sqrt(height * width / (640 * 480))


def grid(height: int, width: int) -> tuple[Field, Field]:
    """Return the pixels' centres: y as (H, 1) and x as (1, W), in heights of the picture."""
    y = (np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)) / np.float32(height)
    x = (np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)) / np.float32(height)
    return y, x


def smooth_noise(random: np.random.Generator, rows: Field, columns: Field) -> Field:
    """Return a random cubic spline, mean 0 and deviation 1, at the points of a grid.

    Parameters
    ----------
    random : its state is advanced by the same amount whatever the grid.
    rows, columns : coordinates of the grid's rows and columns, any shape of H and W values, in cells of the lattice.
    """
    child = random.spawn(1)[0]
    rows, columns = np.ravel(rows), np.ravel(columns)
    row_cells, row_weights = _spline(rows)
    column_cells, column_weights = _spline(columns)
    lattice = child.standard_normal((column_cells.max() + 4, row_cells.max() + 4), dtype=np.float32).T
    along = sum(row_weights[k][:, None] * lattice[row_cells + k] for k in range(4))
    # Whole rows are fetched at memory speed, single values are not: hence the transposed view.
    turned = np.ascontiguousarray(np.asarray(along).T)
    field = column_weights[0][:, None] * turned[column_cells]
    for k in range(1, 4):
        field += column_weights[k][:, None] * turned[column_cells + k]
    return np.ascontiguousarray(field.T) / np.float32(_SPLINE_DEVIATION)


def fractal(
    random: np.random.Generator,
    rows: Field,
    columns: Field,
    octaves: int,
    gain: float = 0.5,
    ridged: bool = False,
) -> Field:
    """Return a sum of `smooth_noise` in ever smaller cells, mean 0 and deviation about 1.

    Parameters
    ----------
    rows, columns : as for `smooth_noise`, in cells of the first octave.
    octaves : how many; each has half the cells' size of the one before.
    gain : its amplitude relative to the one before.
    ridged : fold each octave at 0, so that crests become sharp and valleys round, and let the crests carry the detail.
    """
    rows, columns = np.ravel(rows), np.ravel(columns)
    total: Field = np.zeros((rows.size, columns.size), np.float32)
    carried: Field | None = None
    scale = 0.0
    for octave in range(octaves):
        amplitude = gain**octave
        shift = random.uniform(0, 1, 2)
        noise = smooth_noise(random, rows * 2**octave + shift[0], columns * 2**octave + shift[1])
        if ridged:
            # A folded normal has mean 0.8 and deviation 0.6.
            noise = (np.float32(0.8) - np.abs(noise)) / np.float32(0.6)
            if carried is not None:
                noise *= carried
            carried = np.clip(0.6 + 0.4 * noise, 0, 1.2)
        total += np.float32(amplitude) * noise
        scale += amplitude**2
    total /= np.float32(math.sqrt(scale))
    return total


def look_up(field: Field, y: Field, x: Field) -> Field:
    """Return a field's values between its pixels, bilinear; outside it the nearest edge goes on.

    Parameters
    ----------
    field : shape (H, W) or (H, W, 3).
    y, x : coordinates of one shape, in pixels, 0 for the centre of the first.
    """
    height, width = field.shape[:2]
    y = np.clip(y, 0, height - 1.001).astype(np.float32)
    x = np.clip(x, 0, width - 1.001).astype(np.float32)
    row, column = y.astype(np.int32), x.astype(np.int32)
    down, right = y - row, x - column
    corner = row * width + column
    flat = field.reshape(height * width, *field.shape[2:])
    if field.ndim == 3:
        down, right = down[..., None], right[..., None]
    above = flat[corner] * (1 - right) + flat[corner + 1] * right
    below = flat[corner + width] * (1 - right) + flat[corner + width + 1] * right
    result: Field = above + (below - above) * down
    return result


def blur(field: Field, radius: float) -> Field:
    """Return a field smoothed by three box filters, close to a Gaussian of deviation ``radius`` pixels."""
    reach = max(1, round(radius))
    for axis in (0, 1):
        for _ in range(3):
            padding = [(0, 0)] * field.ndim
            padding[axis] = (reach + 1, reach)
            sums = np.cumsum(np.pad(field, padding, mode="edge"), axis=axis, dtype=np.float64)
            count = field.shape[axis]
            high = np.take(sums, range(2 * reach + 1, 2 * reach + 1 + count), axis=axis)
            low = np.take(sums, range(count), axis=axis)
            field = ((high - low) / (2 * reach + 1)).astype(np.float32)
    return field


def shrink(field: Field, factor: int) -> Field:
    """Return a field with each square of ``factor`` x ``factor`` pixels averaged to one."""
    height, width = field.shape[0] // factor, field.shape[1] // factor
    cut = field[: height * factor, : width * factor]
    result: Field = cut.reshape(height, factor, width, factor, *field.shape[2:]).mean(axis=(1, 3), dtype=np.float32)
    return result


def smoothstep(low: float, high: float, values: Field) -> Field:
    """Return 0 below ``low``, 1 above ``high`` and a smooth step between; ``low`` may be the larger one."""
    t = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    result: Field = t * t * (3 - 2 * t)
    return result


def _spline(positions: Field) -> tuple[npt.NDArray[np.intp], list[Field]]:
    """Return the first of the four cells that each position depends on, and the four weights of a cubic B-spline."""
    first = np.floor(positions).astype(np.intp)
    t = (positions - first).astype(np.float32)
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
    return first, [weight / np.float32(6) for weight in weights]
