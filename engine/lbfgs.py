"""Limited-memory BFGS with bounds, in few passes over the image, on any device.

The direction is that of the compact form of the inverse Hessian H (Byrd, Nocedal and Schnabel, "Representations of
Quasi-Newton Matrices and their Use in Limited Memory Methods", 1994, theorem 2.2): a combination of the stored steps s,
the stored gradient changes y and the gradient, whose coefficients follow from their inner products alone. An iteration
reads the stored vectors twice, once for the inner products with the new ones and once for the direction.

What H is made from, before any pair, tells coarse from fine: gradients of pictures are mostly fine, steps have to be
coarse as well. ``first_matrix`` learns by how much from the pairs themselves, by grids of several sides over the image.

Bounds are kept as in L-BFGS-B (Byrd, Lu, Nocedal and Zhu, "A Limited Memory Algorithm for Bound Constrained
Optimization", 1995), but without its search for a Cauchy point: values that stand at a bound and whose gradient points
outwards are held (Bertsekas, "Projected Newton Methods for Optimization Problems with Simple Constraints", 1982); the
others move by -Z H Z g, where Z takes what is held for 0, and the step is clipped to the bounds. The line search goes
along the clipped path: Armijo's condition with the change that was really made, and the curvature condition in its weak
form. A pair without positive curvature is left out, so that H stays positive definite.

Stored vectors and the direction are float32: they only say where to look. Images and gradients are float64, and so is
the sum of an inner product's pieces. The work on whole vectors is done by ``lbfgs_store``, ``lbfgs_products``,
``lbfgs_direction`` and ``line_step`` of the image's device.

So that a GPU is waited for once an evaluation, all that the next decision can need is launched behind each evaluation
as if its image were going to be accepted: the new pair, its inner products, the projected gradient. The pair goes to a
separate place, so nothing is lost if the image is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.saved import Saved
from kernels import Device
from kernels.grids import Grids

Array = Any
"""An array on the device that the images live on."""

Bounds = tuple[float, float]

Evaluate = Callable[[Array, Callable[[Array], None]], tuple[float, Array]]
"""Takes an image and what is to be launched, given its gradient, before waiting for the value; returns both."""

# Decrease and curvature constants of the line search: the customary ones for quasi-Newton steps.
_ARMIJO, _CURVATURE = 1e-4, 0.9
_SEARCH_EVALUATIONS = 20

GRIDS = (8, 32)
"""Pixels from node to node of the grids that tell coarse from fine."""

# How much less a pair counts than the next one for how much the levels differ, and how far that may go.
_FADING, _MOST = 0.9, 30.0


def l_bfgs(
    device: Device,
    evaluate: Evaluate,
    finish_iteration: Callable[[Array, float, Callable[[], Mapping[str, Array]]], None],
    start: Array,
    bounds: Bounds,
    history: int,
    value_tolerance: float,
    gradient_tolerance: float,
    saved: Saved | None = None,
    grids: tuple[int, ...] = GRIDS,
) -> str:
    """Minimize a function of an image until it has converged or no lower point is found.

    Parameters
    ----------
    device : where the images live.
    evaluate : returns value and gradient, and launches what it is given behind the evaluation.
    finish_iteration : called with each new iterate, its value, and what returns the state there; ends the run by
        raising.
    start : float64, within the bounds.
    bounds : lowest and highest value of each element.
    history : pairs that are kept.
    value_tolerance, gradient_tolerance : as in ``engine.optimize.minimize``, for a function scaled as it does.
    saved : the state to go on from.
    grids : that tell coarse from fine; none takes any vector alike.

    Returns
    -------
    ``"gradient"`` or ``"value"``, whichever tolerance was met, or ``"stalled"``.
    """
    memory = History(device, history, start, bounds, grids)
    lowered, scale = np.inf, 1.0
    if saved is None:
        image = start
        value, _ = evaluate(image, partial(memory.propose, image))
        memory.fetch()
    else:
        image, value = memory.restore(saved, start.shape), saved.number("value")
        lowered, scale = saved.number("lowered"), saved.number("value scale")
    while lowered > value_tolerance * scale:
        if not memory.accept() > gradient_tolerance:
            return "gradient"
        found = _search(evaluate, image, value, memory)
        if found is None and memory.count:
            # Rounding has spoilt the stored pairs, or the function is another by now, as where a tangent has been
            # renewed (engine/tangent.py): begin again from what it is here, with the steepest descent.
            value, _ = evaluate(image, partial(memory.propose, image))
            memory.fetch()
            memory.accept()
            memory.clear()
            found = _search(evaluate, image, value, memory)
        if found is None:
            return "stalled"
        lowered, scale = value - found[1], max(abs(value), abs(found[1]), 1.0)
        image, value = found
        numbers = {"value": value, "lowered": lowered, "value scale": scale}
        finish_iteration(image, value, partial(memory.state, {name: np.array(one) for name, one in numbers.items()}))
    return "value"


def _search(evaluate: Evaluate, image: Array, value: float, memory: History) -> tuple[Array, float] | None:
    """Return a point on the clipped path from ``image`` that is enough lower, with its value, or None.

    It is what ``memory`` was proposed last.
    """
    direction, slope = memory.direction()
    if not slope < 0:
        return None
    search = LineSearch(may_lengthen=memory.count > 0)
    best: tuple[Array, float, Array] | None = None
    for _ in range(_SEARCH_EVALUATIONS):
        new = memory.step(image, direction, search.length)
        new_value, gradient = evaluate(new, partial(memory.propose, new))
        falls, new_slope = memory.fetch()
        if search.lowers(value, new_value, falls):
            if best is None or new_value < best[1]:
                best = new, new_value, gradient
            if search.is_long_enough(new_slope, falls):
                return new, new_value
            search.lengthen()
        else:
            search.shorten(value, new_value, falls)
    if best is None:
        return None
    memory.propose(best[0], best[2])
    memory.fetch()
    return best[:2]


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

    def is_long_enough(self, slope: float, falls: float) -> bool:
        """Say whether the path is flat enough at a step's end; ``slope`` there is what ``falls`` is at its start."""
        return not self._may_lengthen or slope >= _CURVATURE * falls

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


@dataclass(frozen=True)
class _Proposal:
    """A candidate iterate, and what was launched for it.

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


class History:
    """The last pairs (s, y) and the gradient, and what the next direction follows from.

    The first and the last row hold the gradient in turn. Between them, a pair's s is row 1 + 2 * (its number modulo
    pairs + 1), its y is below: the rows in use are at most two runs of consecutive ones.

    Parameters
    ----------
    device : where the images live.
    pairs : how many are kept.
    start : the first image.
    bounds : lowest and highest value of each element.
    grids : that tell coarse from fine.
    """

    def __init__(
        self, device: Device, pairs: int, start: Array, bounds: Bounds, grids: tuple[int, ...] = GRIDS
    ) -> None:
        self.device, self.pairs, self.bounds = device, pairs, bounds
        self.grids = _grids_of(start.shape, grids)
        rows = 1 + 2 * (pairs + 1) + 1
        self._vectors = self.device.empty((rows, self.grids.length), np.float32)
        # Inner products of the rows: of the pixels, and of each level of grids.
        self._products = np.zeros((len(self.grids.levels), rows, rows))
        self._gradient_row = rows - 1
        self._place: tuple[Array, Array] | None = None
        self._free: Array = None
        self._proposal: _Proposal | None = None
        self._numbers: NDArray[np.float64] = np.zeros(3)
        self.count = 0

    def clear(self) -> None:
        """Forget all pairs."""
        self.count = 0

    def step(self, image: Array, direction: Array, length: float) -> Array:
        """Return the image at the end of a step, clipped to the bounds."""
        return self.device.line_step(image, direction, length, self.bounds)

    def propose(self, image: Array, gradient: Array) -> None:
        """Launch what is needed to judge a place, and to go on from there."""
        step = -1 if self._place is None else self._row(self.count)
        kept = range(max(self.count - self.pairs + 1, 0), self.count)
        steps = [self._row(number) for number in kept] + ([step] if step >= 0 else [])
        rows = (step, len(self._vectors) - 1 - self._gradient_row)
        listed = sorted([rows[1], *(row for step in steps for row in (step, step + 1))])
        numbers = self.device.empty((self._count_of_numbers(listed),), np.float64)
        new, old = (image, gradient), self._place or (image, gradient)
        free = self.device.lbfgs_store(new, old, self._vectors, self.grids, rows, self.bounds, numbers[:3])
        self.device.lbfgs_products(self._vectors, self.grids, listed, rows, numbers[3:])
        self._proposal = _Proposal(new, rows, listed, free, numbers)

    def fetch(self) -> tuple[float, float]:
        """Return <gradient at the last place, step> and <gradient at the proposed one, step>; waits for the device."""
        assert self._proposal is not None
        self._numbers = self.device.fetch(self._proposal.numbers)
        return float(self._numbers[0]), float(self._numbers[1])

    def accept(self) -> float:
        """Make the place that was proposed and fetched the next; return the largest of the projected gradient.

        New are only the inner products of its pair and its gradient.
        """
        assert self._proposal is not None
        step, gradient = self._proposal.rows
        listed = self._proposal.listed
        found = self._numbers[3:].reshape(-1, len(listed), 3)
        new = [(gradient, 2)]
        if step >= 0:
            new += [(step, 0), (step + 1, 1)]
            self.count += 1
        for row, column in new:
            self._products[:, row, listed] = self._products[:, listed, row] = found[:, :, column]
        self._place, self._free, self._gradient_row = self._proposal.place, self._proposal.free, gradient
        return float(self._numbers[2])

    def state(self, numbers: Mapping[str, Array]) -> dict[str, Array]:
        """Return ``numbers`` and what ``restore`` takes: the place that was proposed and fetched last is not lost."""
        assert self._proposal is not None
        image, gradient = self._proposal.place
        return {
            **numbers,
            "image": image,
            "gradient": gradient,
            "free": self._proposal.free,
            "fetched": self._numbers,
            "rows": np.array(self._proposal.rows, np.int64),
            "listed": np.array(self._proposal.listed, np.int64),
            "pairs so far": np.array(self.count, np.int64),
            "products": self._products,
            **{f"vector {row}": self._vectors[row : row + 1] for row in self._proposal.listed},
        }

    def restore(self, saved: Saved, shape: tuple[int, ...]) -> Array:
        """Return to the state that ``state`` gave, before its place was accepted; return the image there.

        Parameters
        ----------
        shape : of the image.

        Raises ValueError for a state of something else.
        """
        rows, length = self._vectors.shape
        self.count = saved.count("pairs so far", 0, 1 << 62)
        step, gradient = (int(row) for row in saved.host("rows", (2,), np.int64))
        kept = range(max(self.count - self.pairs + 1, 0), self.count + 1)
        listed = sorted([gradient, *(row + below for row in map(self._row, kept) for below in (0, 1))])
        if (
            gradient not in (0, rows - 1)
            or step != self._row(self.count)
            or saved.host("listed", None, np.int64).tolist() != listed
        ):
            raise saved.misfit("rows")
        vectors = np.zeros((rows, length), np.float32)
        for row in listed:
            vectors[row] = saved.host(f"vector {row}", (1, length), np.float32)
        if not np.isfinite(vectors).all():
            raise saved.misfit("vectors")
        self._vectors = self.device.put(vectors)
        self._products = saved.host("products", self._products.shape)
        self._numbers = saved.host("fetched", (self._count_of_numbers(listed),))
        if not all(np.isfinite(array).all() for array in (self._products, self._numbers)):
            raise saved.misfit("products")
        image, free = saved.array("image", shape), saved.array("free", (self.grids.size,), np.uint8)
        place = image, saved.array("gradient", shape)
        self._proposal = _Proposal(place, (step, gradient), listed, free, None)
        return image

    def direction(self) -> tuple[Array, float]:
        """Return minus the inverse Hessian times the gradient, of the values that are free; and its slope."""
        steps = [self._row(number) for number in range(max(self.count - self.pairs, 0), self.count)]
        rows, factors = coefficients(self._products, steps, self._gradient_row)
        slope = float((factors * self._products[:, rows, self._gradient_row]).sum())
        direction = self.device.lbfgs_direction(self._vectors, self.grids, rows.tolist(), factors, self._free)
        return direction, slope

    def _row(self, number: int) -> int:
        return 1 + 2 * (number % (self.pairs + 1))

    def _count_of_numbers(self, listed: Sequence[int]) -> int:
        return 3 + 3 * len(listed) * len(self.grids.levels)


def coefficients(
    products: NDArray[np.float64], steps: Sequence[int], gradient: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows that the direction -H g is made of, and their factors, (levels, rows).

    With H_0 from ``first_matrix``, D the diagonal and R the upper triangle of S^T Y, and g already 0 where a value is
    held::

        H g = H_0 (g - Y u) + S p,   R u = S^T g,   R^T p = D u + Y^T H_0 (Y u - g)

    Parameters
    ----------
    products : (levels, rows, rows), inner products of the stored rows.
    steps : the rows of the steps, oldest first; the change of the gradient is in the row below each.
    gradient : the gradient's row.
    """
    used = [i for i in steps if products[0, i, i + 1] > 1e-10 * products[0, i + 1, i + 1]]
    if not used:
        return np.array([gradient]), -np.eye(len(products), 1)
    s = np.array(used)
    y, g = s + 1, np.array([gradient])
    first = first_matrix(products, s)

    def within(rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the products a^T H_0 b of some rows with others."""
        of_levels: NDArray[np.float64] = products[:, rows[:, None], others]
        return np.tensordot(first, of_levels, 1)

    R = np.triu(products[0][np.ix_(s, y)])
    u = np.linalg.solve(R, products[0][s, g])
    p = np.linalg.solve(R.T, np.diag(R) * u + within(y, y) @ u - within(y, g)[:, 0])
    factors = np.outer(first, [-1.0, *u, *np.zeros(len(s))])
    factors[0, 1 + len(y) :] = -p
    return np.concatenate([g, y, s]), factors


def first_matrix(products: NDArray[np.float64], s: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return H_0 = gamma K: the factor of a vector in it, and those of its means by each of the grids.

    K multiplies what lies between two levels, P = M_l - M_l+1 with the means M of ``kernels.grids``, by how long the
    steps are there for their change of gradient: ``sqrt(sum <s, P s> / sum <y, P y>)``. The sums are over the pairs,
    which are divided by <s, y> and fade with age. gamma is the usual <s, y> / <y, K y> of the newest pair.

    Source of gamma: Liu and Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization" (1989).

    Parameters
    ----------
    products : as for ``coefficients``.
    s : the rows of the steps that are used, oldest first.
    """
    y = s + 1
    weights = _FADING ** np.arange(len(s))[::-1] / products[0, s, y]
    ss, yy = (products[:, rows, rows] @ weights for rows in (s, y))
    between = [np.maximum(of_levels - np.append(of_levels[1:], 0), 1e-7 * of_levels[0]) for of_levels in (ss, yy)]
    lengths = np.sqrt(between[0] / between[1] * (yy[0] / ss[0])).clip(1 / _MOST, _MOST)
    factors: NDArray[np.float64] = np.diff(lengths, prepend=0)
    return factors * (products[0, s[-1], y[-1]] / (factors @ products[:, y[-1], y[-1]]))


def _grids_of(shape: tuple[int, ...], sides: tuple[int, ...]) -> Grids:
    """Return the grids of an image, as far as it is larger; none of what is no image."""
    return Grids(shape, tuple(side for side in sides if len(shape) == 3 and side < max(shape[:2])))
