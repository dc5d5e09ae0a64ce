"""Limited-memory BFGS with bounds, in few passes over the image.

The direction is that of the compact form (Byrd, Nocedal and Schnabel, "Representations of Quasi-Newton Matrices and
their Use in Limited Memory Methods", 1994, theorem 2.3): a combination of the stored steps s, the stored gradient
changes y and the gradient, whose coefficients follow from their inner products alone. An iteration reads the stored
vectors twice, once for the inner products with the new ones and once for the direction.

Bounds are kept as in L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995), but without its search for a Cauchy point: values that
stand at a bound and whose gradient points outwards are held (Bertsekas, "Projected Newton Methods for Optimization
Problems with Simple Constraints", 1982); the others take the exact step of the quasi-Newton model among themselves, and
the step is clipped to the bounds. The line search goes along the clipped path: Armijo's condition with the change that
was really made, and the curvature condition in its weak form. A pair without positive curvature is left out, so that
the quasi-Newton matrix stays positive definite.

Stored vectors and the direction are float32: they only say where to look. Iterates and gradients are float64, and so is
the sum of an inner product's pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Workers
from kernels.geometry import strips

Vector = NDArray[np.float64]
Direction = NDArray[np.float32]
Bounds = tuple[float, float]
Result = TypeVar("Result")
Evaluate = Callable[[Vector], tuple[float, Vector]]

# Decrease and curvature constants of the line search: the customary ones for quasi-Newton steps.
_ARMIJO, _CURVATURE = 1e-4, 0.9
SEARCH_EVALUATIONS = 20
# Values a strip, long enough to be worth the dozen calls for it, and values a piece of an inner product.
_STRIP, _PIECE = 1 << 16, 1 << 9


class Strips:
    """Arithmetic on vectors of one size, strip by strip on all threads; sums are taken in the strips' order."""

    def __init__(self, size: int, workers: Workers) -> None:
        self.workers = workers
        self.parts = [slice(*bounds) for bounds in strips(size, _STRIP)]

    def map(self, function: Callable[[slice], Result]) -> list[Result]:
        """Return what ``function`` gives for each strip."""
        return self.workers.map(function, self.parts)

    def step(
        self, x: Vector, gradient: Vector, direction: Direction, length: float, bounds: Bounds
    ) -> tuple[Vector, float]:
        """Return x + length * direction, clipped to the bounds, and <gradient, what that changed>."""
        result = np.empty_like(x)

        def move(part: slice) -> float:
            new = result[part]
            np.multiply(direction[part], length, out=new)
            new += x[part]
            np.clip(new, *bounds, out=new)
            return float(np.dot(gradient[part], self.difference(new, x[part])))

        return result, float(sum(self.map(move)))

    def slope(self, gradient: Vector, new: Vector, old: Vector) -> float:
        """Return <gradient, new - old>."""
        return float(sum(self.map(lambda part: float(np.dot(gradient[part], self.difference(new[part], old[part]))))))

    def difference(self, a: Vector, b: Vector) -> Vector:
        """Return a - b of a strip, in memory that lasts until the same thread's next difference."""
        result: Vector = self.workers.scratch("difference", a.shape, a.dtype)
        return np.subtract(a, b, out=result)


def _products(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the inner products of all rows of ``a`` with all rows of ``b``.

    They are taken piece by piece in one call: NumPy keeps the interpreter lock, and with it all other threads, during a
    product whose result has fewer than 500 elements.
    """
    whole = a.shape[1] // _PIECE * _PIECE
    pieces = a[:, :whole].reshape(len(a), -1, _PIECE).transpose(1, 2, 0)
    others = b[:, :whole].reshape(len(b), -1, _PIECE).transpose(1, 0, 2)
    of_pieces = (others @ pieces).sum(axis=0, dtype=np.float64).T
    total: NDArray[np.float64] = of_pieces + a[:, whole:] @ b[:, whole:].T
    return total


class History:
    """The last pairs (s, y) and the gradient, and what the next direction follows from.

    Parameters
    ----------
    pairs : how many are kept.
    size : length of the vectors.
    bounds : lowest and highest value of each element.
    workers : the threads to use.
    """

    def __init__(self, pairs: int, size: int, bounds: Bounds, workers: Workers) -> None:
        self.pairs = pairs
        self.bounds = bounds
        self.along = Strips(size, workers)
        # The gradient is row 0; a pair's s is row 1 + 2 * (its number modulo pairs), its y the row below.
        self.vectors = np.zeros((1 + 2 * pairs, size), np.float32)
        # Inner products of the rows: over all values, and over the free ones only.
        self.products = np.zeros((1 + 2 * pairs, 1 + 2 * pairs))
        self.free_products = np.zeros_like(self.products)
        self.free = np.ones(size, bool)
        self.held: list[NDArray[np.intp]] = []
        self.count = 0
        self.place: tuple[Vector, Vector] | None = None

    @property
    def rows(self) -> int:
        """How many vectors are stored."""
        return 1 + 2 * min(self.count, self.pairs)

    def clear(self) -> None:
        """Forget all pairs."""
        self.count = 0

    def move_to(self, x: Vector, gradient: Vector) -> float:
        """Store the pair that leads from the last place to this one, in place of the oldest.

        Finds which values are held and forms all inner products that the direction needs, in one pass. New are only
        those of the newest pair and of the gradient; to the others, over the free values, come the few values that
        have been held until now, and those go that are held from now on.

        Returns
        -------
        The largest element of the projected gradient.
        """
        if self.place is not None:
            self.count += 1
        rows, s = self.rows, 1 + 2 * ((self.count - 1) % self.pairs)
        pair, new = ([s, s + 1], [s, s + 1, 0]) if self.count else ([], [0])
        old_x, old_gradient = self.place or (x, gradient)
        scratch = self.along.workers.scratch

        def visit(part: slice) -> tuple[float, NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
            moved = self.along.difference(x[part], gradient[part])
            np.clip(moved, *self.bounds, out=moved)
            moved -= x[part]
            # A value at a bound with its gradient pointing outwards does not move.
            largest, free = float(max(moved.max(), -moved.min())), moved != 0
            held, changed = np.flatnonzero(~free), np.flatnonzero(free != self.free[part])
            self.free[part] = free
            stored = self.vectors[:rows, part]
            stored[0] = gradient[part]
            if pair:
                stored[s] = self.along.difference(x[part], old_x[part])
                stored[s + 1] = self.along.difference(gradient[part], old_gradient[part])
            copies = scratch("new", (len(pair) + len(new), part.stop - part.start), stored.dtype)
            for copy, row in zip(copies, pair + new, strict=True):
                copy[...] = stored[row]
            for copy in copies[len(pair) :]:
                copy[held] = 0
            of_changed = stored[:, changed]
            come = of_changed * np.where(free[changed], np.float32(1), np.float32(-1))
            return largest, held, _products(copies, stored), (come @ of_changed.T).astype(np.float64)

        largest, held, products, come = zip(*self.along.map(visit), strict=True)
        self.held = list(held)
        of_new = sum(products)
        self.free_products[:rows, :rows] += sum(come)
        for of_all, chosen, found in (
            (self.products, pair, of_new[: len(pair)]),
            (self.free_products, new, of_new[len(pair) :]),
        ):
            of_all[chosen, :rows] = found
            of_all[:rows, chosen] = found.T
        self.place = x, gradient
        return float(max(largest))

    def direction(self) -> tuple[Direction, float]:
        """Return minus the inverse Hessian of the free values, times the gradient; 0 for the others; and its slope."""
        rows = self.rows
        coefficients = self._coefficients().astype(np.float32)
        result = np.empty(self.vectors.shape[1], np.float32)

        def combine(item: tuple[slice, NDArray[np.intp]]) -> float:
            part, held = item
            along = np.matmul(coefficients, self.vectors[:rows, part], out=result[part])
            along[held] = 0
            return float(np.dot(self.vectors[0, part], along))

        items = list(zip(self.along.parts, self.held, strict=True))
        return result, float(sum(self.along.workers.map(combine, items)))

    def _coefficients(self) -> NDArray[np.float64]:
        """Return what the direction is made of: the coefficient of each stored row."""
        oldest_first = [1 + 2 * (number % self.pairs) for number in range(max(self.count - self.pairs, 0), self.count)]
        rows, values = coefficients(self.products, self.free_products, oldest_first, 0)
        of_rows = np.zeros(self.rows)
        of_rows[rows] = values
        return of_rows


def coefficients(
    products: NDArray[np.float64], free_products: NDArray[np.float64], steps: Sequence[int], gradient: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows that the direction is made of, and the coefficient of each; the gradient's comes first.

    With W = [Y, theta S] the quasi-Newton matrix is B = theta I - W M W^T, where the inverse of M is
    [[-D, L^T], [L, theta S^T S]], D the diagonal and L the part below the diagonal of S^T Y. Its part among the free
    values is inverted by the formula of Sherman, Morrison and Woodbury.

    Parameters
    ----------
    products, free_products : inner products of the stored rows, over all values and over the free ones.
    steps : the rows of the steps, oldest first; the change of the gradient is in the row below each.
    gradient : the gradient's row.
    """
    used = [i for i in steps if products[i, i + 1] > 1e-10 * products[i + 1, i + 1]]
    if not used:
        return np.array([gradient]), np.array([-1.0])
    s = np.array(used)
    y = s + 1
    sy, ss = products[np.ix_(s, y)], products[np.ix_(s, s)]
    theta = products[y[-1], y[-1]] / sy[-1, -1]
    lower = np.tril(sy, -1)
    inverse_m = np.block([[-np.diag(np.diag(sy)), lower.T], [lower, theta * ss]])
    order, scale = np.concatenate([y, s]), np.repeat([1.0, theta], len(s))
    w_w = free_products[np.ix_(order, order)] * np.outer(scale, scale)
    w_g = free_products[order, gradient] * scale
    z = np.linalg.solve(inverse_m - w_w / theta, w_g)
    return np.array([gradient, *order]), np.array([-1 / theta, *(-z * scale / theta**2)])


class LineSearch:
    """Which length of the step to try next.

    A step that does not lower the value enough (Armijo) is shortened by interpolation, one after which the path still
    falls nearly as steeply (weak curvature condition) is lengthened; both ends close in on a step that is neither. The
    first step, along the gradient, is not lengthened: an evaluation is better spent on the next direction.
    """

    def __init__(self, may_lengthen: bool) -> None:
        self.length = 1.0
        self._shortest, self._longest, self._may_lengthen = 0.0, np.inf, may_lengthen

    def lowers(self, value: float, new_value: float, falls: float) -> bool:
        """Say whether a step lowers the value enough; ``falls`` is what its slope at the start promises."""
        return new_value <= value + _ARMIJO * falls and new_value < value

    def is_long_enough(self, slope: Callable[[], float], falls: float) -> bool:
        """Say whether the path is flat enough at the end of a step; ``slope`` is asked for where it matters."""
        return not self._may_lengthen or slope() >= _CURVATURE * falls

    def lengthen(self) -> None:
        """Go on from a step that is too short."""
        self._shortest = self.length
        self.length = 2 * self.length if self._longest == np.inf else (self._shortest + self._longest) / 2

    def shorten(self, value: float, new_value: float, falls: float) -> None:
        """Go back from a step that is too long."""
        self._longest = self.length
        if self._shortest > 0:
            self.length = (self._shortest + self._longest) / 2
        else:
            # The minimum of the parabola through the value, its slope and the new value.
            parabola = 2 * (new_value - value - falls)
            ratio = -falls / parabola if parabola > 0 else 0.5
            self.length *= min(max(ratio, 0.1), 0.5)


def l_bfgs(
    evaluate: Evaluate,
    finish_iteration: Callable[[Vector, float], None],
    start: Vector,
    bounds: Bounds,
    history: int,
    value_tolerance: float,
    gradient_tolerance: float,
    workers: Workers,
) -> str:
    """Minimise a function of a vector until it has converged or no lower point is found.

    Parameters
    ----------
    evaluate : returns value and gradient.
    finish_iteration : called with each new iterate and its value; ends the run by raising.
    start : within the bounds.
    bounds : lowest and highest value of each element.
    history : pairs that are kept.
    value_tolerance, gradient_tolerance : as in ``engine.optimize.minimize``, for a function scaled as it does.
    workers : the threads to use.

    Returns
    -------
    ``"gradient"`` or ``"value"``, whichever tolerance was met, or ``"stalled"``.
    """
    memory = History(history, start.size, bounds, workers)
    x = start.copy()
    value, gradient = evaluate(x)
    while memory.move_to(x, gradient) > gradient_tolerance:
        found = _search(evaluate, x, value, gradient, memory)
        if found is None and memory.count:
            # Rounding has spoilt the stored pairs: begin again with the steepest descent.
            memory.clear()
            found = _search(evaluate, x, value, gradient, memory)
        if found is None:
            return "stalled"
        lowered, scale = value - found[1], max(abs(value), abs(found[1]), 1.0)
        x, value, gradient = found
        finish_iteration(x, value)
        if lowered <= value_tolerance * scale:
            return "value"
    return "gradient"


def _search(
    evaluate: Evaluate, x: Vector, value: float, gradient: Vector, memory: History
) -> tuple[Vector, float, Vector] | None:
    """Return a point on the clipped path from ``x`` that is enough lower, with its value and gradient, or None."""
    direction, slope = memory.direction()
    if not slope < 0:
        return None
    search = LineSearch(may_lengthen=memory.count > 0)
    best: tuple[Vector, float, Vector] | None = None
    for _ in range(SEARCH_EVALUATIONS):
        new, falls = memory.along.step(x, gradient, direction, search.length, memory.bounds)
        new_value, new_gradient = evaluate(new)
        if search.lowers(value, new_value, falls):
            if best is None or new_value < best[1]:
                best = new, new_value, new_gradient
            if search.is_long_enough(partial(memory.along.slope, new_gradient, new, x), falls):
                return new, new_value, new_gradient
            search.lengthen()
        else:
            search.shorten(value, new_value, falls)
    return best
