"""Limited-memory BFGS with bounds, in few passes over the image.

The direction is the two-loop recursion (Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4), carried out
on coefficients: every vector in it is a combination of the stored steps s_i, the stored gradient changes y_i and the
gradient, so that it needs no more than their inner products (Chen, Wang and Zhou, "Large-scale L-BFGS using MapReduce",
2014). An iteration reads the stored vectors twice, once for all inner products and once for the direction, where the
recursion itself would read them four times and write twice as often.

Bounds are kept by two-metric projection (Bertsekas, "Projected Newton Methods for Optimization Problems with Simple
Constraints", 1982): values that stand at a bound and whose gradient points outwards are held; the others take the
quasi-Newton step, in which the stored vectors and the gradient count without the held values, and the step is clipped
to the bounds. The line search goes
along the clipped path: Armijo's condition with the change that was really made, and the curvature condition in its weak
form, which also makes <s, y> positive, so that every stored pair keeps the inverse Hessian positive definite.

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
Result = TypeVar("Result")
Evaluate = Callable[[Vector], tuple[float, Vector]]

# Decrease and curvature constants of the line search: the customary ones for quasi-Newton steps.
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_EVALUATIONS = 20
# Values a strip: short enough that its vectors stay in a core's cache through all that is done with them.
_STRIP = 1 << 15


class Strips:
    """Arithmetic on vectors of one size, strip by strip on all threads; sums are taken in the strips' order."""

    def __init__(self, size: int, workers: Workers) -> None:
        self.workers = workers
        self.parts = [slice(*bounds) for bounds in strips(size, _STRIP)]

    def map(self, function: Callable[[slice], Result]) -> list[Result]:
        """Return what ``function`` gives for each strip."""
        return self.workers.map(function, self.parts)

    def dot(self, a: Vector, b: Vector) -> float:
        """Return <a, b>."""
        return float(sum(self.map(lambda part: float(a[part] @ b[part]))))

    def subtract(self, a: Vector, b: Vector, out: Vector) -> None:
        """Write a - b to ``out``."""
        self.map(lambda part: np.subtract(a[part], b[part], out=out[part]))

    def step(self, x: Vector, direction: Vector, length: float, bounds: tuple[float, float]) -> Vector:
        """Return x + length * direction, clipped to the bounds."""
        result = np.empty_like(x)

        def move(part: slice) -> None:
            np.multiply(direction[part], length, out=result[part])
            result[part] += x[part]
            np.clip(result[part], *bounds, out=result[part])

        self.map(move)
        return result


class History:
    """The last pairs (s, y).

    Parameters
    ----------
    pairs : how many are kept.
    size : length of the vectors.
    along : how to go through them.
    """

    def __init__(self, pairs: int, size: int, along: Strips) -> None:
        self.pairs = pairs
        self.along = along
        # Rows 0 .. pairs - 1 hold s, the others y; a pair's place in each half is that of its number modulo pairs.
        self.vectors = np.zeros((2 * pairs, size), np.float32)
        self.count = 0

    def clear(self) -> None:
        """Forget all pairs."""
        self.count = 0
        self.vectors[...] = 0

    def add(self, s: Vector, y: Vector) -> None:
        """Store a pair in place of the oldest."""
        place = self.count % self.pairs

        def copy(part: slice) -> None:
            self.vectors[place, part] = s[part]
            self.vectors[self.pairs + place, part] = y[part]

        self.along.map(copy)
        self.count += 1

    def direction(self, gradient: Vector, held: NDArray[np.bool_]) -> Vector:
        """Return minus the inverse Hessian of the values that are not held, times ``gradient``; 0 for those held."""
        size = 2 * self.pairs + 1

        def inner(part: slice) -> NDArray[np.float64]:
            rows = self.along.workers.scratch("rows", (size, part.stop - part.start), np.dtype(np.float32))
            rows[:-1] = self.vectors[:, part]
            rows[-1] = gradient[part]
            rows[:, held[part]] = 0
            return (rows @ rows.T).astype(np.float64)

        products = np.zeros((size, size))
        for of_strip in self.along.map(inner):
            products += of_strip
        weights = self._coefficients(products)
        of_gradient, of_vectors = weights[-1], weights[:-1].astype(np.float32)
        result = np.empty_like(gradient)

        def combine(part: slice) -> None:
            np.multiply(gradient[part], of_gradient, out=result[part])
            result[part] += of_vectors @ self.vectors[:, part]
            result[part][held[part]] = 0

        self.along.map(combine)
        return result

    def _coefficients(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Run the two-loop recursion on the coefficients of s, y and the gradient, whose inner products are given."""
        m = self.pairs
        r = np.zeros(2 * m + 1)
        r[-1] = -1
        newest_first = [number % m for number in range(self.count - 1, max(self.count - m, 0) - 1, -1)]
        # Among the values that are free now, a pair may have lost the curvature it was stored for.
        usable = [i for i in newest_first if products[i, m + i] > 1e-10 * products[m + i, m + i]]
        if not usable:
            return r
        alpha = {}
        for i in usable:
            alpha[i] = products[i] @ r / products[i, m + i]
            r[m + i] -= alpha[i]
        newest = usable[0]
        r *= products[newest, m + newest] / products[m + newest, m + newest]
        for i in reversed(usable):
            beta = products[m + i] @ r / products[i, m + i]
            r[i] += alpha[i] - beta
        return r


def l_bfgs(
    evaluate: Evaluate,
    finish_iteration: Callable[[Vector], None],
    start: Vector,
    bounds: tuple[float, float],
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
    along = Strips(start.size, workers)
    memory = History(history, start.size, along)
    x = start.copy()
    value, gradient = evaluate(x)
    step, change = np.empty_like(x), np.empty_like(x)
    while True:
        held, largest = _held(x, gradient, bounds, along)
        if largest <= gradient_tolerance:
            return "gradient"
        direction = memory.direction(gradient, held)
        if not along.dot(direction, gradient) < 0:
            # Rounding has spoilt the stored pairs: begin again with the steepest descent.
            memory.clear()
            direction = memory.direction(gradient, held)
        found = _search(evaluate, x, value, gradient, direction, bounds, along, first=memory.count == 0)
        if found is None and memory.count:
            memory.clear()
            continue
        if found is None:
            return "stalled"
        new, new_value, new_gradient = found
        along.subtract(new, x, step)
        along.subtract(new_gradient, gradient, change)
        if along.dot(step, change) > 1e-10 * along.dot(change, change):
            memory.add(step, change)
        lowered, scale = value - new_value, max(abs(value), abs(new_value), 1.0)
        x, value, gradient = new, new_value, new_gradient
        finish_iteration(x)
        if lowered <= value_tolerance * scale:
            return "value"


def _held(x: Vector, gradient: Vector, bounds: tuple[float, float], along: Strips) -> tuple[NDArray[np.bool_], float]:
    """Return which values are held at a bound, and the largest element of the projected gradient."""
    low, high = bounds
    held = np.empty(x.shape, bool)

    def project(part: slice) -> float:
        at, uphill = x[part], gradient[part]
        held[part] = ((at <= low) & (uphill > 0)) | ((at >= high) & (uphill < 0))
        return float(np.abs(np.clip(at - uphill, low, high) - at).max())

    return held, max(along.map(project))


def _search(
    evaluate: Evaluate,
    x: Vector,
    value: float,
    gradient: Vector,
    direction: Vector,
    bounds: tuple[float, float],
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
    moved = np.empty_like(x)
    for _ in range(_SEARCH_EVALUATIONS):
        new = along.step(x, direction, length, bounds)
        along.subtract(new, x, moved)
        falls = along.dot(gradient, moved)
        new_value, new_gradient = evaluate(new)
        if new_value <= value + _ARMIJO * falls and new_value < value:
            if best is None or new_value < best[1]:
                best = new, new_value, new_gradient
            if first or along.dot(new_gradient, moved) >= _CURVATURE * falls:
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
