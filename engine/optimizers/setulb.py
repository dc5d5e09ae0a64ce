"""scipy's L-BFGS-B solver, called step by step, so that its state can be saved.

``scipy.optimize.minimize`` keeps the solver's state to itself. Below it is a function in C, ``setulb``, which works by
reverse communication: it returns when it wants an evaluation or has finished an iteration, and everything that it knows
is in arrays of its caller's. They are the state; nothing has to be replayed.

The function is not part of scipy's public interface. ``check_solver`` makes sure that it is what is expected.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from engine.saved import Saved

Vector = NDArray[np.float64]

Evaluate = Callable[[Vector], tuple[float, Vector]]
"""Takes an image, flat, which it must not change; returns value and gradient."""

SEARCH_EVALUATIONS = 20
"""scipy's own limit for one iteration's line search."""

_NEW_ITERATE, _EVALUATE, _CONVERGED = 1, 3, 4
_BY_GRADIENT = 401

# The first of its whole numbers say where the parts of its workspace begin.
_LAYOUT = 16

# Where its whole numbers say which correction is the first and the last, how many there are, and how many values are
# free, have become so and no longer are.
_HEAD, _COLUMNS, _TAIL, _FREE, _LEFT, _ENTERED = 26, 27, 28, 37, 39, 40


# Its numbers for how a value stands to its bounds are from -3 to 3.
_KINDS = 3


class Solver:
    """One minimization by ``setulb``.

    Parameters
    ----------
    start : float64, flat, within the bounds.
    bounds : lowest and highest value of each element.
    history : corrections that it keeps.
    value_tolerance, gradient_tolerance : as in ``engine.optimize.minimize``, for a function scaled as it does.
    """

    def __init__(
        self,
        start: Vector,
        bounds: tuple[float, float],
        history: int,
        value_tolerance: float,
        gradient_tolerance: float,
    ) -> None:
        self._setulb: Callable[..., None] = importlib.import_module("scipy.optimize._lbfgsb").setulb
        self._history, size = history, start.size
        self._factor, self._gradient_tolerance = value_tolerance / np.finfo(float).eps, gradient_tolerance
        below, above = np.isfinite(bounds)
        kind = {(False, False): 0, (True, False): 1, (True, True): 2, (False, True): 3}[bool(below), bool(above)]
        self._kinds = np.full(size, kind, np.int32)
        self._low, self._high = (np.full(size, bound if np.isfinite(bound) else 0.0) for bound in bounds)
        self._image, self._value, self._gradient = start.copy(), 0.0, np.zeros(size)
        self._evaluated: Vector | None = None
        self._evaluations = 0
        self._own: dict[str, NDArray[Any]] = {
            "work": np.zeros(2 * history * size + 5 * size + 11 * history**2 + 8 * history),
            "places": np.zeros(3 * size, np.int32),
            "task": np.zeros(2, np.int32),
            "search task": np.zeros(2, np.int32),
            "flags": np.zeros(4, np.int32),
            "counters": np.zeros(44, np.int32),
            "scalars": np.zeros(29),
        }

    def solve(self, evaluate: Evaluate, finish_iteration: Callable[[Vector], None], evaluations: int) -> str | None:
        """Minimize until a tolerance is met; return which, ``"gradient"`` or ``"value"``, or None for neither.

        Parameters
        ----------
        finish_iteration : called with each new iterate; ends the run by raising.
        evaluations : after which the run ends with its iteration.
        """
        own = self._own
        while True:
            self._advance()
            wanted = int(own["task"][0])
            if wanted == _EVALUATE:
                # As scipy does it: a place that was the last is not evaluated anew.
                if self._evaluated is None or not np.array_equal(self._image, self._evaluated):
                    self._evaluated = self._image.copy()
                    self._value, self._found = evaluate(self._evaluated)
                    self._evaluations += 1
                self._gradient = self._found.astype(np.float64)
            elif wanted == _NEW_ITERATE:
                finish_iteration(self._image)
                if self._evaluations > evaluations:
                    return None
            elif wanted == _CONVERGED:
                return "gradient" if own["task"][1] == _BY_GRADIENT else "value"
            else:
                return None

    def _advance(self) -> None:
        """Have the function go on until it wants something."""
        own = self._own
        self._setulb(
            self._history,
            self._image,
            self._low,
            self._high,
            self._kinds,
            self._value,
            self._gradient,
            self._factor,
            self._gradient_tolerance,
            *(own[name] for name in ("work", "places", "task", "flags", "counters", "scalars")),
            SEARCH_EVALUATIONS,
            own["search task"],
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return where it stands after an iteration; the arrays are its own."""
        numbers = {"image": self._image, "gradient": self._gradient, "value": np.array(self._value)}
        return {**numbers, "evaluations": np.array(self._evaluations, np.int64), **self._own}

    def restore(self, saved: Saved) -> None:
        """Return to a state that ``state`` gave; raises ValueError for one of something else.

        What the function in C takes for places in its arrays is looked at: it trusts them.
        """
        size, history = self._image.size, self._history
        self._advance()
        layout = self._own["counters"][:_LAYOUT]
        self._image, self._gradient = saved.host("image", (size,)), saved.host("gradient", (size,))
        self._value, self._evaluations = saved.number("value"), saved.count("evaluations", 1, 1 << 62)
        self._own = {name: saved.host(name, one.shape, one.dtype) for name, one in self._own.items()}
        counters, places = self._own["counters"], self._own["places"]
        limits = {_HEAD: history - 1, _COLUMNS: history, _TAIL: history - 1, _FREE: size, _LEFT: size, _ENTERED: size}
        within = all(0 <= counters[place] <= most for place, most in limits.items())
        if not (within and np.array_equal(counters[:_LAYOUT], layout)):
            raise saved.misfit("counters")
        lists, kinds = places.reshape(3, size)[::2], places[size : 2 * size]
        if lists.min() < 0 or lists.max() > size or np.abs(kinds).max() > _KINDS:
            raise saved.misfit("places")
        if self._own["task"][0] != _NEW_ITERATE:
            raise saved.misfit("task")
        self._evaluated, self._found = self._image.copy(), self._gradient.copy()


@functools.cache
def check_solver() -> None:
    """Raise ValueError unless ``setulb`` takes the same steps as ``scipy.optimize.minimize``, on a small function."""
    start, bounds = np.linspace(-1.0, 0.6, 9), (-1.0, 0.7)
    walks: tuple[list[bytes], list[bytes]] = [], []
    limits = scipy.optimize.Bounds(np.full(9, bounds[0]), np.full(9, bounds[1]))
    options = {"maxcor": 3, "ftol": 1e-12, "gtol": 1e-9, "maxiter": 60, "maxls": SEARCH_EVALUATIONS}
    scipy.optimize.minimize(
        _valley,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        callback=lambda x: walks[0].append(x.tobytes()),
        options=options,
    )
    problem = "this scipy's L-BFGS-B does not let its state be saved"
    try:
        Solver(start, bounds, 3, 1e-12, 1e-9).solve(_valley, lambda x: walks[1].append(x.tobytes()), 1000)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{problem} (scipy {scipy.__version__}: {error}): choose --optimizer l-bfgs") from None
    if walks[0] != walks[1] or len(walks[0]) < 5:
        raise ValueError(f"{problem} (scipy {scipy.__version__}): choose --optimizer l-bfgs")


def _valley(x: Vector) -> tuple[float, Vector]:
    """Return Rosenbrock's bent valley in all neighboring values, and its gradient."""
    bend, slope = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    gradient = np.zeros_like(x)
    gradient[:-1] = -400 * x[:-1] * bend - 2 * slope
    gradient[1:] += 200 * bend
    return float(100 * bend @ bend + slope @ slope), gradient
