"""What L-BFGS with bounds needs of the stored vectors: engine/lbfgs.py has the mathematics.

Images and gradients are in double precision, stored vectors (rows of one matrix, a value of each in a column) in
single. Everything goes strip by strip through the cache; the strips' parts of a sum are added in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Image = NDArray[np.float64]
Vectors = NDArray[np.float32]
Flags = NDArray[np.uint8]

# Values a strip: long enough to be worth the dozens of calls for it, and the threads' turns at the interpreter lock.
_STRIP = 1 << 16
# Values a piece of an inner product, see _products.
_PIECE = 1 << 9


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

    threads.map(move, _parts(image.size))
    return output


def lbfgs_store(
    threads: Threads,
    new: tuple[Image, Image],
    old: tuple[Image, Image],
    vectors: Vectors,
    old_free: Flags | None,
    rows: tuple[int, int],
    bounds: tuple[float, float],
    output: NDArray[np.float64],
) -> tuple[Flags, Flags]:
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
    step_row, gradient_row = rows
    size = new[0].size
    free, changed = np.empty(size, np.uint8), np.empty(size, np.uint8)
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
        np.subtract(free[part], 1 if old_free is None else old_free[part], out=changed[part])
        vectors[gradient_row, part] = g
        np.subtract(x, old_x, out=work)
        falls, slope = float(np.dot(old_g, work)), float(np.dot(g, work))
        if step_row >= 0:
            vectors[step_row, part] = work
            np.subtract(g, old_g, out=work)
            vectors[step_row + 1, part] = work
        return falls, slope, largest

    falls, slopes, largest = zip(*threads.map(visit, _parts(size)), strict=True)
    output[:] = sum(falls), sum(slopes), max(largest)
    return free, changed


def lbfgs_products(
    threads: Threads,
    vectors: Vectors,
    listed: Sequence[int],
    free: Flags,
    changed: Flags,
    rows: tuple[int, int],
    output: NDArray[np.float64],
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
    step, gradient = rows
    s, y = (gradient, gradient) if step < 0 else (step, step + 1)
    count, runs = len(listed), _runs(listed)
    flat, starts = vectors.reshape(-1), np.array(listed)[:, None] * free.size

    def visit(part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        length = part.stop - part.start
        new = threads.scratch("lbfgs", (5, length), vectors.dtype)
        can_move = threads.scratch("lbfgs, free", (length,), vectors.dtype)
        can_move[...] = free[part]
        for row, of_all, of_free in ((s, new[0], new[2]), (y, new[1], new[3])):
            of_all[...] = vectors[row, part]
            np.multiply(of_all, can_move, out=of_free)
        np.multiply(vectors[gradient, part], can_move, out=new[4])
        of_new = np.concatenate([_products(vectors[run, part], new) for run in runs])
        moved = np.flatnonzero(changed[part] != 0)
        of_moved = flat.take(moved + (starts + part.start))
        signs = changed[part].view(np.int8)[moved].astype(vectors.dtype)  # 255 is -1
        return of_new, ((of_moved * signs) @ of_moved.T).astype(np.float64)

    of_new, changes = zip(*threads.map(visit, _parts(free.size)), strict=True)
    output[: 5 * count] = sum(of_new).ravel()
    output[5 * count :] = sum(changes).ravel()


def lbfgs_direction(
    threads: Threads, vectors: Vectors, listed: Sequence[int], coefficients: NDArray[np.float64], free: Flags
) -> Vectors:
    """Return the combination of the listed rows, (size,), float32; 0 where a value is not free.

    Parameters
    ----------
    vectors : (stored rows, size), float32.
    listed, coefficients : the n rows and the factor of each.
    free : (size,), uint8.
    """
    direction = np.empty(free.size, np.float32)
    of_rows = np.zeros(len(vectors), np.float32)
    of_rows[list(listed)] = coefficients
    first, *others = _runs(sorted(listed))

    def combine(part: slice) -> None:
        along = direction[part]
        np.matmul(of_rows[first], vectors[first, part], out=along)
        for run in others:
            more = threads.scratch("lbfgs", along.shape, along.dtype)
            along += np.matmul(of_rows[run], vectors[run, part], out=more)
        along *= free[part]

    threads.map(combine, _parts(free.size))
    return direction


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


def _parts(size: int) -> list[slice]:
    return [slice(*bounds) for bounds in strips(size, _STRIP)]
