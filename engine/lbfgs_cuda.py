"""The L-BFGS of ``engine.lbfgs`` with everything on a GPU: one wait for the device an evaluation.

The mathematics is the same, with the same coefficients. What differs is when numbers are known: while an image is being
evaluated, all that the next decision can need is launched behind it, as if the image were going to be accepted: the new
pair, its inner products, the projected gradient. The pair goes to a place of its own, so that nothing is lost where the
image is rejected. Then value and numbers are fetched together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.lbfgs import SEARCH_EVALUATIONS, Bounds, LineSearch, coefficients
from kernels import kernels_of, to_cuda, to_host

Array = Any
"""An array on the GPU."""

Evaluate = Callable[[Array, Callable[[Array], None]], tuple[float, Array]]
"""Takes an image and what is to be launched, given its gradient, before waiting for the value; returns both."""


@dataclass(frozen=True)
class _Proposal:
    """A place that may become the next, and what was launched for it.

    Parameters
    ----------
    place : image and gradient.
    rows : of the step (-1 for none) and of the gradient.
    listed : the rows in use.
    free : which values can move.
    numbers : what ``lbfgs_store`` and ``lbfgs_products`` give, on the device.
    """

    place: tuple[Array, Array]
    rows: tuple[int, int]
    listed: list[int]
    free: Array
    numbers: Array


class DeviceHistory:
    """The last pairs (s, y) and the gradient on the GPU, and what the next direction follows from.

    Rows 0 and 1 hold the gradient in turn; a pair's s is row 2 + 2 * (its number modulo pairs + 1), its y is below.

    Parameters
    ----------
    pairs : how many are kept.
    start : the first image.
    bounds : lowest and highest value of each element.
    """

    def __init__(self, pairs: int, start: Array, bounds: Bounds) -> None:
        self.pairs, self.bounds = pairs, bounds
        self._kernels = kernels_of(start)
        rows = 2 + 2 * (pairs + 1)
        self._vectors = self._kernels.empty((rows, start.size), np.float32)
        self._free = to_cuda(np.ones(start.size, np.uint8))
        self._products = np.zeros((rows, rows))
        self._free_products = np.zeros((rows, rows))
        self._gradient_row = 1
        self._place: tuple[Array, Array] | None = None
        self._proposal: _Proposal | None = None
        self._numbers: NDArray[np.float64] = np.zeros(3)
        self.count = 0

    def clear(self) -> None:
        """Forget all pairs."""
        self.count = 0

    def propose(self, image: Array, gradient: Array) -> None:
        """Launch what is needed to judge a place, and to go on from there."""
        old = self._place or (image, gradient)
        step = self._row(self.count) if self._place else -1
        kept = range(max(self.count - self.pairs + 1, 0), self.count)
        steps = [self._row(number) for number in kept] + ([step] if self._place else [])
        rows = (step, 1 - self._gradient_row)
        listed = [rows[1], *(row for step in steps for row in (step, step + 1))]
        numbers = self._kernels.empty((3 + 5 * len(listed) + len(listed) ** 2,), np.float64)
        free, changed = self._kernels.lbfgs_store(
            (image, gradient), old, self._vectors, self._free, rows, self.bounds, numbers[:3]
        )
        self._kernels.lbfgs_products(self._vectors, _indices(listed), free, changed, rows, numbers[3:])
        self._proposal = _Proposal((image, gradient), rows, listed, free, numbers)

    def fetch(self) -> tuple[float, float]:
        """Return <gradient at the last place, step> and <gradient at the proposed one, step>; waits for the device."""
        assert self._proposal is not None
        self._numbers = to_host(self._proposal.numbers)
        return float(self._numbers[0]), float(self._numbers[1])

    def accept(self) -> float:
        """Make the place that was proposed and fetched the next.

        Returns
        -------
        The largest element of the projected gradient.
        """
        assert self._proposal is not None
        step, gradient = self._proposal.rows
        listed = self._proposal.listed
        found = self._numbers[3 : 3 + 5 * len(listed)].reshape(-1, 5)
        self._free_products[np.ix_(listed, listed)] += self._numbers[3 + 5 * len(listed) :].reshape(len(listed), -1)
        new = [(self._free_products, gradient, 4)]
        if step >= 0:
            new += [(self._products, step, 0), (self._products, step + 1, 1)]
            new += [(self._free_products, step, 2), (self._free_products, step + 1, 3)]
            self.count += 1
        for products, row, column in new:
            products[row, listed] = products[listed, row] = found[:, column]
        self._place, self._free, self._gradient_row = self._proposal.place, self._proposal.free, gradient
        return float(self._numbers[2])

    def direction(self) -> tuple[Array, float]:
        """Return minus the inverse Hessian of the free values, times the gradient; 0 for the others; and its slope."""
        steps = [self._row(number) for number in range(max(self.count - self.pairs, 0), self.count)]
        rows, values = coefficients(self._products, self._free_products, steps, self._gradient_row)
        slope = float(values @ self._free_products[rows, self._gradient_row])
        given = to_cuda(values.astype(np.float32))
        return self._kernels.lbfgs_direction(self._vectors, _indices(rows), given, self._free), slope

    def _row(self, number: int) -> int:
        return 2 + 2 * (number % (self.pairs + 1))


def l_bfgs_on_cuda(
    evaluate: Evaluate,
    finish_iteration: Callable[[Array, float], None],
    start: Array,
    bounds: Bounds,
    history: int,
    value_tolerance: float,
    gradient_tolerance: float,
) -> str:
    """Minimise a function of an image until it has converged or no lower point is found; see ``engine.lbfgs.l_bfgs``.

    Parameters
    ----------
    evaluate : returns value and gradient, and launches what it is given behind the evaluation.
    start : an image on the GPU, float64, within the bounds.
    """
    memory = DeviceHistory(history, start, bounds)
    image = start
    value, _ = evaluate(image, partial(memory.propose, image))
    memory.fetch()
    while memory.accept() > gradient_tolerance:
        found = _search(evaluate, image, value, memory)
        if found is None and memory.count:
            # Rounding has spoilt the stored pairs: begin again with the steepest descent.
            memory.clear()
            found = _search(evaluate, image, value, memory)
        if found is None:
            return "stalled"
        lowered, scale = value - found[1], max(abs(value), abs(found[1]), 1.0)
        image, value = found
        finish_iteration(image, value)
        if lowered <= value_tolerance * scale:
            return "value"
    return "gradient"


def _search(evaluate: Evaluate, image: Array, value: float, memory: DeviceHistory) -> tuple[Array, float] | None:
    """Return a point on the clipped path from ``image`` that is enough lower, with its value, or None.

    It is what ``memory`` was proposed last.
    """
    direction, slope = memory.direction()
    if not slope < 0:
        return None
    search = LineSearch(may_lengthen=memory.count > 0)
    best: tuple[Array, float, Array] | None = None
    for _ in range(SEARCH_EVALUATIONS):
        new = kernels_of(image).line_step(image, direction, search.length, memory.bounds)
        new_value, gradient = evaluate(new, partial(memory.propose, new))
        falls, new_slope = memory.fetch()
        if search.lowers(value, new_value, falls):
            if best is None or new_value < best[1]:
                best = new, new_value, gradient
            if search.is_long_enough(partial(float, new_slope), falls):
                return new, new_value
            search.lengthen()
        else:
            search.shorten(value, new_value, falls)
    if best is None:
        return None
    memory.propose(best[0], best[2])
    memory.fetch()
    return best[:2]


def _indices(rows: Any) -> Array:
    return to_cuda(np.array(rows, np.int32))
