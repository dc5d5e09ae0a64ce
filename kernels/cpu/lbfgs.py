"""What L-BFGS with bounds needs of the stored vectors: engine/lbfgs.py has the mathematics.

Images and gradients are in double precision, stored vectors (rows of one matrix) in single. A row holds a vector's
values and those of its grids' nodes, see ``kernels.grids``. Everything goes strip by strip through the cache; the
strips' parts of a sum are added in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips
from kernels.grids import Grids, Level, hats

Image = NDArray[np.float64]
Vectors = NDArray[np.float32]
Flags = NDArray[np.uint8]

# Values a strip: long enough to be worth the dozens of calls for it, and the threads' turns at the interpreter lock.
_STRIP = 1 << 16
# Values a piece of an inner product, see _products.
_PIECE = 1 << 10


def line_step(threads: Threads, image: Image, direction: Vectors, length: float, bounds: tuple[float, float]) -> Image:
    """Return ``image + length * direction``, clipped to the bounds.

    Parameters
    ----------
    image : float64.
    direction : (size,), float32.
    """
    output = np.empty(image.shape)
    start, flat = image.reshape(-1), output.reshape(-1)

    def move(part: slice) -> None:
        new = flat[part]
        new[...] = direction[part]
        if length != 1:
            new *= length
        new += start[part]
        np.clip(new, *bounds, out=new)

    threads.map(move, _parts(0, image.size))
    return output


def lbfgs_store(
    threads: Threads,
    new: tuple[Image, Image],
    old: tuple[Image, Image],
    vectors: Vectors,
    grids: Grids,
    rows: tuple[int, int],
    bounds: tuple[float, float],
    output: NDArray[np.float64],
) -> Flags:
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
    step_row, gradient_row = rows
    free = np.empty(grids.size, np.uint8)
    given = [array.reshape(-1) for array in (*new, *old)]

    def visit(part: slice) -> tuple[float, float, float]:
        x, g, old_x, old_g = (array[part] for array in given)
        work = threads.scratch("lbfgs", x.shape, x.dtype)
        np.subtract(x, g, out=work)
        np.clip(work, *bounds, out=work)
        work -= x
        largest = max(float(work.max()), -float(work.min()))
        # A value at a bound with its gradient pointing outwards does not move.
        np.not_equal(work, 0, out=free[part].view(bool))
        np.multiply(g, free[part], out=work)
        vectors[gradient_row, part] = work
        np.subtract(x, old_x, out=work)
        falls, slope = float(np.dot(old_g, work)), float(np.dot(g, work))
        if step_row >= 0:
            vectors[step_row, part] = work
            np.subtract(g, old_g, out=work)
            vectors[step_row + 1, part] = work
        return falls, slope, largest

    falls, slopes, largest = zip(*threads.map(visit, _parts(0, grids.size)), strict=True)
    output[:] = sum(falls), sum(slopes), max(largest)
    for row in (gradient_row,) if step_row < 0 else (step_row, step_row + 1, gradient_row):
        _fill_nodes(threads, vectors[row], grids)
    return free


def lbfgs_products(
    threads: Threads,
    vectors: Vectors,
    grids: Grids,
    listed: Sequence[int],
    rows: tuple[int, int],
    output: NDArray[np.float64],
) -> None:
    """Take the inner products that follow ``lbfgs_store``.

    Parameters
    ----------
    vectors, grids, rows : as for ``lbfgs_store``; without a step, what concerns it is the gradient's.
    listed : the n rows in use.
    output : (levels, n, 3), float64, of the values and of each grid's nodes: for each listed row r <s, r>, <y, r>
        and <g, r>.
    """
    step, gradient = rows
    new = [gradient] * 3 if step < 0 else [step, step + 1, gradient]
    runs = _runs(listed)
    results = output.reshape(len(grids.levels), len(listed), 3)

    def visit(part: slice) -> NDArray[np.float64]:
        of_new = threads.scratch("lbfgs", (3, part.stop - part.start), vectors.dtype)
        for number, row in enumerate(new):
            of_new[number] = vectors[row, part]
        return np.concatenate([_products(vectors[run, part], of_new) for run in runs])

    for result, level in zip(results, grids.levels, strict=True):
        result[...] = sum(threads.map(visit, _parts(level.start, level.end)))


def lbfgs_direction(
    threads: Threads,
    vectors: Vectors,
    grids: Grids,
    listed: Sequence[int],
    coefficients: NDArray[np.float64],
    free: Flags,
) -> Vectors:
    """Return a combination of the listed rows and of their means by the grids, (size,), float32.

    Parameters
    ----------
    vectors, grids : as for ``lbfgs_store``.
    listed : n rows.
    coefficients : (levels, n): the factor of each row, and those of its means by each of the grids.
    free : (size,), uint8; the result is 0 where a value is not free.
    """
    direction = np.empty(grids.size, np.float32)
    factors = np.zeros((len(coefficients), len(vectors)), np.float32)
    factors[:, list(listed)] = coefficients
    runs = _runs(sorted(listed))

    def combined(level: int, part: slice, output: Vectors) -> Vectors:
        np.matmul(factors[level, runs[0]], vectors[runs[0], part], out=output)
        for run in runs[1:]:
            more = threads.scratch("lbfgs", output.shape, output.dtype)
            output += np.matmul(factors[level, run], vectors[run, part], out=more)
        return output

    means: Vectors | None = None
    for number, level in reversed(list(enumerate(grids.levels[1:], 1))):
        own = combined(number, slice(level.start, level.end), np.empty(level.values, np.float32)).reshape(level.shape)
        own /= grids.roots(number)
        if means is not None:
            step = grids.step(number + 1)
            own += _spread(means, hats(0, level.shape[1], step), step, level.shape)
        means = own

    lines, width = grids.shape[0], grids.size // grids.shape[0]
    side = grids.sides[0] if grids.sides else 1
    across = hats(0, grids.shape[1], side) if grids.sides else None  # once for all strips

    def combine(strip: tuple[int, int]) -> None:
        top, bottom = strip
        part = slice(top * width, bottom * width)
        along = combined(0, part, direction[part])
        if means is not None and across is not None:
            along += _spread(means, across, side, (bottom - top, *grids.shape[1:]), top).ravel()
        along *= free[part]

    threads.map(combine, strips(lines, max(_STRIP // (width * side), 1) * side))
    return direction


def _fill_nodes(threads: Threads, row: Vectors, grids: Grids) -> None:
    """Write the values of a row's nodes, from those of its pixels."""
    for number, level in enumerate(grids.levels[1:], 1):
        _fill_level(threads, row, grids, number, level)


def _fill_level(threads: Threads, row: Vectors, grids: Grids, number: int, level: Level) -> None:
    below, step = grids.levels[number - 1], grids.step(number)
    given, output = (row[one.start : one.end].reshape(one.shape) for one in (below, level))
    of_below, roots = grids.roots(number - 1), grids.roots(number)
    across = hats(0, below.shape[1], step).T

    def visit(strip: tuple[int, int]) -> None:
        first, stop = strip
        top, bottom = max((first - 1) * step + 1, 0), min(stop * step, below.shape[0])
        down = hats(top, bottom - top, step)[:, first - top // step :][:, : stop - first].T
        # A node's value times its root is the sum under its hat.
        rows = given[top:bottom] if number == 1 else given[top:bottom] * of_below[top:bottom]
        lines = (down @ rows.reshape(len(rows), -1)).reshape(stop - first, *below.shape[1:])
        output[first:stop] = across @ lines / roots[first:stop]

    threads.map(visit, strips(level.shape[0], max(_STRIP // (step * below.shape[1] * below.shape[2]), 1)))


def _spread(means: Vectors, across: Vectors, step: int, shape: tuple[int, ...], first: int = 0) -> Vectors:
    """Return what lies between nodes, interpolated: an array of a shape that begins at a row of the level below."""
    down = hats(first, shape[0], step)
    lines = across @ means[first // step : first // step + down.shape[1]]
    return (down @ lines.reshape(len(lines), -1)).reshape(shape)


def _products(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the inner products of all rows of ``a`` with all rows of ``b``.

    They are taken piece by piece in one call: NumPy keeps the interpreter lock, and with it all other threads, during a
    product whose result has fewer than 500 elements.
    """
    whole = a.shape[1] // _PIECE * _PIECE
    pieces = a[:, :whole].reshape(len(a), -1, _PIECE).transpose(1, 0, 2)
    others = b[:, :whole].reshape(len(b), -1, _PIECE).transpose(1, 2, 0)
    total: NDArray[np.float64] = (pieces @ others).sum(axis=0, dtype=np.float64)
    total += a[:, whole:] @ b[:, whole:].T
    return total


def _runs(rows: Sequence[int]) -> list[slice]:
    """Return the slices of consecutive rows that ``rows`` are made of: a slice is read where it is, not copied."""
    runs: list[slice] = []
    for row in rows:
        if runs and runs[-1].stop == row:
            runs[-1] = slice(runs[-1].start, row + 1)
        else:
            runs.append(slice(row, row + 1))
    return runs


def _parts(start: int, end: int) -> list[slice]:
    return [slice(start + first, start + last) for first, last in strips(end - start, _STRIP)]
