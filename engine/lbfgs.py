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

Stored vectors are float32: they only shape the direction. Iterates, gradients and all inner products are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Workers
from kernels.geometry import strips

Vector = NDArray[np.float64]
Bounds = tuple[float, float]
Result = TypeVar("Result")
Evaluate = Callable[[Vector], tuple[float, Vector]]

# Decrease and curvature constants of the line search: the customary ones for quasi-Newton steps.
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_EVALUATIONS = 20
# Values a strip: long enough to be worth a call, and so short that a strip of all stored vectors stays in cache.
_STRIP, _HISTORY_STRIP = 1 << 15, 1 << 13


class Strips:
    """Arithmetic on vectors of one size, strip by strip on all threads; sums are taken in the strips' order."""

    def __init__(self, size: int, length: int, workers: Workers) -> None:
        self.workers = workers
        self.parts = [slice(*bounds) for bounds in strips(size, length)]

    def map(self, function: Callable[[slice], Result]) -> list[Result]:
        """Return what ``function`` gives for each strip."""
        return self.workers.map(function, self.parts)

    def dot(self, a: Vector, b: Vector) -> float:
        """Return <a, b>."""
        return float(sum(self.map(lambda part: float(a[part] @ b[part]))))

    def step(
        self, x: Vector, gradient: Vector, direction: Vector, length: float, bounds: Bounds
    ) -> tuple[Vector, float]:
        """Return x + length * direction, clipped to the bounds, and <gradient, what that changed>."""
        result = np.empty_like(x)

        def move(part: slice) -> float:
            new = result[part]
            np.multiply(direction[part], length, out=new)
            new += x[part]
            np.clip(new, *bounds, out=new)
            return float(gradient[part] @ (new - x[part]))

        return result, float(sum(self.map(move)))


class History:
    """The last pairs (s, y) and the inner products of all of them.

    Parameters
    ----------
    pairs : how many are kept.
    size : length of the vectors.
    workers : the threads to use.
    """

    def __init__(self, pairs: int, size: int, workers: Workers) -> None:
        self.pairs = pairs
        self.along = Strips(size, _HISTORY_STRIP, workers)
        # Rows 0 .. pairs - 1 hold s, the others y; a pair's place in each half is that of its number modulo pairs.
        self.vectors = np.zeros((2 * pairs, size), np.float32)
        self.products = np.zeros((2 * pairs, 2 * pairs))
        self.count = 0

    def clear(self) -> None:
        """Forget all pairs."""
        self.count = 0
        self.vectors[...] = 0
        self.products[...] = 0

    def add(self, new: Vector, old: Vector, new_gradient: Vector, old_gradient: Vector) -> None:
        """Store the pair (new - old, new gradient - old gradient) in place of the oldest."""
        place = self.count % self.pairs
        s, y = self.vectors[place], self.vectors[self.pairs + place]

        def store(part: slice) -> None:
            np.subtract(new[part], old[part], out=s[part], casting="same_kind")
            np.subtract(new_gradient[part], old_gradient[part], out=y[part], casting="same_kind")

        self.along.map(store)
        self.count += 1

    def direction(self, gradient: Vector, free: NDArray[np.bool_]) -> Vector:
        """Return minus the inverse Hessian of the free values, times ``gradient``; 0 for the others."""
        weights = self._coefficients(self._free_products(gradient, free))
        of_gradient, of_vectors = weights[-1], weights[:-1].astype(np.float32)
        result = np.empty_like(gradient)

        def combine(part: slice) -> None:
            np.multiply(gradient[part], of_gradient, out=result[part])
            result[part] += of_vectors @ self.vectors[:, part]
            result[part] *= free[part]

        self.along.map(combine)
        return result

    def _free_products(self, gradient: Vector, free: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the inner products of all s, y and the gradient, counting free values only.

        Of the products over all values only the newest pair's and the gradient's are formed; few values are held as a
        rule, and what these contribute is taken off.
        """
        m = self.pairs
        newest = (self.count - 1) % m
        new = [newest, m + newest]
        size = 2 * m + 1

        def inner(part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            rows, scratch = self.vectors[:, part], self.along.workers.scratch
            others = scratch("others", (3, part.stop - part.start), rows.dtype)
            others[0], others[1], others[2] = rows[newest], rows[m + newest], gradient[part]
            held = np.flatnonzero(~free[part])
            of_held = np.concatenate([rows[:, held], others[2:, held]])
            return (rows @ others.T).astype(np.float64), (of_held @ of_held.T).astype(np.float64)

        columns, taken_off = np.zeros((2 * m, 3)), np.zeros((size, size))
        for of_strip, of_held in self.along.map(inner):
            columns += of_strip
            taken_off += of_held
        self.products[:, new] = columns[:, :2]
        self.products[new] = columns[:, :2].T
        return np.block([[self.products, columns[:, 2:]], [columns[:, 2:].T, np.zeros((1, 1))]]) - taken_off

    def _coefficients(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the direction is made of: its coefficients of s, y and the gradient.

        With W = [Y, theta S] the quasi-Newton matrix is B = theta I - W M W^T, where the inverse of M is
        [[-D, L^T], [L, theta S^T S]], D the diagonal and L the part below the diagonal of S^T Y. Its part among the
        free values is inverted by the formula of Sherman, Morrison and Woodbury.

        Parameters
        ----------
        free : inner products of all s, y and the gradient, counting free values only.
        """
        m = self.pairs
        coefficients = np.zeros(2 * m + 1)
        oldest_first = [number % m for number in range(max(self.count - m, 0), self.count)]
        used = [i for i in oldest_first if self.products[i, m + i] > 1e-10 * self.products[m + i, m + i]]
        if not used:
            coefficients[-1] = -1
            return coefficients
        s = np.array(used)
        y = m + s
        sy, ss = self.products[np.ix_(s, y)], self.products[np.ix_(s, s)]
        theta = self.products[y[-1], y[-1]] / sy[-1, -1]
        lower = np.tril(sy, -1)
        inverse_m = np.block([[-np.diag(np.diag(sy)), lower.T], [lower, theta * ss]])
        order, scale = np.concatenate([y, s]), np.repeat([1.0, theta], len(s))
        w_w = free[np.ix_(order, order)] * np.outer(scale, scale)
        w_g = free[order, -1] * scale
        z = np.linalg.solve(inverse_m - w_w / theta, w_g)
        coefficients[-1] = -1 / theta
        coefficients[order] = -z * scale / theta**2
        return coefficients


def l_bfgs(
    evaluate: Evaluate,
    finish_iteration: Callable[[Vector], None],
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
    finish_iteration : called with each new iterate; ends the run by raising.
    start : within the bounds.
    bounds : lowest and highest value of each element.
    history : pairs that are kept.
    value_tolerance, gradient_tolerance : as in ``engine.optimize.minimize``, for a function scaled as it does.
    workers : the threads to use.

    Returns
    -------
    ``"gradient"`` or ``"value"``, whichever tolerance was met, or ``"stalled"``.
    """
    along = Strips(start.size, _STRIP, workers)
    memory = History(history, start.size, workers)
    x = start.copy()
    value, gradient = evaluate(x)
    while True:
        free, largest = _free(x, gradient, bounds, along)
        if largest <= gradient_tolerance:
            return "gradient"
        direction = memory.direction(gradient, free)
        if not along.dot(direction, gradient) < 0:
            # Rounding has spoilt the stored pairs: begin again with the steepest descent.
            memory.clear()
            direction = memory.direction(gradient, free)
        found = _search(evaluate, x, value, gradient, direction, bounds, along, first=memory.count == 0)
        if found is None and memory.count:
            memory.clear()
            continue
        if found is None:
            return "stalled"
        new, new_value, new_gradient = found
        memory.add(new, x, new_gradient, gradient)
        lowered, scale = value - new_value, max(abs(value), abs(new_value), 1.0)
        x, value, gradient = new, new_value, new_gradient
        finish_iteration(x)
        if lowered <= value_tolerance * scale:
            return "value"


def _free(x: Vector, gradient: Vector, bounds: Bounds, along: Strips) -> tuple[NDArray[np.bool_], float]:
    """Return which values are not held at a bound, and the largest element of the projected gradient."""
    low, high = bounds
    free = np.empty(x.shape, bool)

    def project(part: slice) -> float:
        moved = np.clip(x[part] - gradient[part], low, high)
        moved -= x[part]
        # A value at a bound with its gradient pointing outwards does not move.
        np.not_equal(moved, 0, out=free[part])
        return float(max(moved.max(), -moved.min()))

    return free, max(along.map(project))


def _search(
    evaluate: Evaluate,
    x: Vector,
    value: float,
    gradient: Vector,
    direction: Vector,
    bounds: Bounds,
    along: Strips,
    *,
    first: bool,
) -> tuple[Vector, float, Vector] | None:
    """Return a point on the clipped path from ``x`` that is enough lower, with its value and gradient, or None.

    A step that does not lower the value enough (Armijo) is shortened by interpolation, one after which the path still
    falls nearly as steeply (weak curvature condition) is lengthened; both ends close in on a step that is neither. The
    ``first`` step, along the gradient, is not lengthened: an evaluation is better spent on the next direction.
    """
    length, shortest, longest = 1.0, 0.0, np.inf
    best: tuple[Vector, float, Vector] | None = None
    for _ in range(_SEARCH_EVALUATIONS):
        new, falls = along.step(x, gradient, direction, length, bounds)
        new_value, new_gradient = evaluate(new)
        if new_value <= value + _ARMIJO * falls and new_value < value:
            if best is None or new_value < best[1]:
                best = new, new_value, new_gradient
            if first or along.dot(new_gradient, new - x) >= _CURVATURE * falls:
                return new, new_value, new_gradient
            shortest = length
            length = 2 * length if longest == np.inf else (shortest + longest) / 2
        else:
            longest = length
            if shortest > 0:
                length = (shortest + longest) / 2
            else:
                # The minimum of the parabola through the value, its slope and the new value.
                parabola = 2 * (new_value - value - falls)
                ratio = -falls / parabola if parabola > 0 else 0.5
                length *= min(max(ratio, 0.1), 0.5)
    return best
