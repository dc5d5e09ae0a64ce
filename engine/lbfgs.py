"""Limited-memory BFGS with bounds, in few passes over the image.

The direction is the two-loop recursion (Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4), carried out
on coefficients: every vector in it is a combination of the stored steps s_i, the stored gradient changes y_i and the
gradient, so that it needs no more than their inner products (Chen, Wang and Zhou, "Large-scale L-BFGS using MapReduce",
2014). An iteration reads the stored vectors twice, once for the inner products with the three new vectors and once for
the direction, where the recursion itself would read them four times and write as often.

Bounds are kept by two-metric projection (Bertsekas, "Projected Newton Methods for Optimization Problems with Simple
Constraints", 1982): values that stand at a bound and whose gradient points outwards are held; the others take the
quasi-Newton step of the gradient without the held ones, and the step is clipped to the bounds. The line search goes
along the clipped path: Armijo's condition with the change that was really made, and the curvature condition in its weak
form, which also makes <s, y> positive, so that every stored pair keeps the inverse Hessian positive definite.

Stored vectors are float32: they only shape the direction. Iterates, gradients and all inner products are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Workers
from kernels.geometry import strips

Vector = NDArray[np.float64]
Evaluate = Callable[[Vector], tuple[float, Vector]]

# Decrease and curvature constants of the line search: the customary ones for quasi-Newton steps.
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_EVALUATIONS = 20
# Values a strip: short enough that its vectors stay in a core's cache through all that is done with them.
_STRIP = 1 << 15


class History:
    """The last pairs (s, y).

    Parameters
    ----------
    pairs : how many are kept.
    size : length of the vectors.
    workers : the threads to use.
    """

    def __init__(self, pairs: int, size: int, workers: Workers) -> None:
        self.pairs = pairs
        self.workers = workers
        self.strips = strips(size, _STRIP)
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

        def copy(bounds: tuple[int, int]) -> None:
            part = slice(*bounds)
            self.vectors[place, part] = s[part]
            self.vectors[self.pairs + place, part] = y[part]

        self.workers.map(copy, self.strips)
        self.count += 1

    def direction(self, gradient: Vector, held: NDArray[np.bool_]) -> Vector:
        """Return minus the inverse Hessian of the values that are not held, times ``gradient``; 0 for those held."""

        def inner(bounds: tuple[int, int]) -> NDArray[np.float64]:
            part = slice(*bounds)
            rows = self.workers.scratch("rows", (2 * self.pairs + 1, bounds[1] - bounds[0]), np.dtype(np.float32))
            rows[:-1] = self.vectors[:, part]
            rows[-1] = gradient[part]
            rows[:, held[part]] = 0
            return (rows @ rows.T).astype(np.float64)

        size = 2 * self.pairs + 1
        products = sum(self.workers.map(inner, self.strips), np.zeros((size, size)))
        weights = self._coefficients(products)
        of_gradient, of_vectors = weights[-1], weights[:-1].astype(np.float32)
        result = np.empty_like(gradient)

        def combine(bounds: tuple[int, int]) -> None:
            part = slice(*bounds)
            np.multiply(gradient[part], of_gradient, out=result[part])
            result[part] += of_vectors @ self.vectors[:, part]
            result[part][held[part]] = 0

        self.workers.map(combine, self.strips)
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

    Returns
    -------
    ``"gradient"`` or ``"value"``, whichever tolerance was met, or ``"stalled"``.
    """
    low, high = bounds
    memory = History(history, start.size, workers)
    cut = memory.strips
    x = start.copy()
    value, gradient = evaluate(x)
    held, step, change = np.empty(x.shape, bool), np.empty_like(x), np.empty_like(x)

    def reduce(part: Callable[[slice], tuple[float, ...]]) -> NDArray[np.float64]:
        """Return the sums of what ``part`` gives for each strip, taken in order."""
        return np.asarray(sum(np.array(values) for values in workers.map(lambda cut_: part(slice(*cut_)), cut)))

    def project(part: slice) -> float:
        """Note the held values; return the largest element of the projected gradient."""
        at, downhill = x[part], gradient[part]
        held[part] = ((at <= low) & (downhill > 0)) | ((at >= high) & (downhill < 0))
        return float(np.abs(np.clip(at - downhill, low, high) - at).max())

    while True:
        if max(workers.map(lambda cut_: project(slice(*cut_)), cut)) <= gradient_tolerance:
            return "gradient"
        direction = memory.direction(gradient, held)
        slope = float(reduce(lambda part: (float(direction[part] @ gradient[part]),))[0])
        if not slope < 0:
            # Rounding has spoilt the stored pairs: begin again with the steepest descent.
            memory.clear()
            direction = memory.direction(gradient, held)
        found = _search(evaluate, x, value, gradient, direction, bounds, reduce, memory.count > 0)
        if found is None and memory.count:
            memory.clear()
            continue
        if found is None:
            return "stalled"
        new, new_value, new_gradient = found

        def differ(part: slice, new: Vector = new, new_gradient: Vector = new_gradient) -> tuple[float, float]:
            np.subtract(new[part], x[part], out=step[part])
            np.subtract(new_gradient[part], gradient[part], out=change[part])
            return float(step[part] @ change[part]), float(np.square(change[part]).sum())

        curvature, size = reduce(differ)
        if curvature > 1e-10 * size:
            memory.add(step, change)
        lowered = value - new_value
        scale = max(abs(value), abs(new_value), 1.0)
        x, value, gradient = new, new_value, new_gradient
        finish_iteration(x)
        if lowered <= value_tolerance * scale:
            return "value"


def _search(
    evaluate: Evaluate,
    x: Vector,
    value: float,
    gradient: Vector,
    direction: Vector,
    bounds: tuple[float, float],
    reduce: Callable[[Callable[[slice], tuple[float, ...]]], NDArray[Any]],
    lengthen: bool,
) -> tuple[Vector, float, Vector] | None:
    """Return a point on the clipped path from ``x`` that is enough lower, with its value and gradient, or None.

    A step that does not lower the value enough (Armijo) is shortened by interpolation, one after which the path still
    falls nearly as steeply (weak curvature condition) is lengthened; both ends close in on a step that is neither.
    """
    length, shortest, longest = 1.0, 0.0, np.inf
    best: tuple[Vector, float, Vector] | None = None
    for _ in range(_SEARCH_EVALUATIONS):
        new = np.empty_like(x)

        def move(part: slice, length: float = length, new: Vector = new) -> tuple[float]:
            np.multiply(direction[part], length, out=new[part])
            new[part] += x[part]
            np.clip(new[part], *bounds, out=new[part])
            return (float(gradient[part] @ (new[part] - x[part])),)

        falls = float(reduce(move)[0])
        new_value, new_gradient = evaluate(new)
        if new_value <= value + _ARMIJO * falls and new_value < value:
            if best is None or new_value < best[1]:
                best = new, new_value, new_gradient

            def slope(part: slice, new: Vector = new, new_gradient: Vector = new_gradient) -> tuple[float]:
                return (float(new_gradient[part] @ (new[part] - x[part])),)

            if not lengthen or float(reduce(slope)[0]) >= _CURVATURE * falls:
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
