"""Minimising an objective over the image: scipy's L-BFGS-B, an L-BFGS of our own, Adam, and descent with momentum.

The loss is scaled for the optimisers so that the largest element of the first gradient is 1. A gradient tolerance of
1e-8 then means "a hundred-millionth of the first gradient" for any network and any weights, L-BFGS-B's first trial step
moves no value by more than one grey level, and a learning rate is in grey levels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from engine.errors import NonFiniteError, unknown_name
from engine.lbfgs import l_bfgs
from engine.objective import Pending
from engine.ops import Array
from kernels import kernels_of, lives_on_cuda, to_cuda, to_host
from kernels.cpu.threads import SERIAL, Workers

METHODS = ("l-bfgs-b", "l-bfgs", "adam", "sgd")

LEARNING_RATES = {"adam": 10.0, "sgd": 10.0}
"""Default step of each first-order method, in grey levels."""

HISTORIES = {"l-bfgs-b": 10, "l-bfgs": 20}
"""Default number of corrections: scipy's own, and what measured best at the same cost for the project's method."""

ITERATIONS = 500
"""Default number of iterations at most."""

MAX_HISTORY = 1000
"""More corrections than this cost more than they can bring, in time and in memory."""


class DifferentiableFunction(Protocol):
    """What is minimised: an ``Objective``, or any function of the image with its gradient."""

    def __call__(self, image: Array) -> tuple[Any, Array]:
        """Return value and gradient."""
        ...


@dataclass(frozen=True)
class Iteration:
    """What the callback gets after each iteration.

    Parameters
    ----------
    iteration, evaluations : how many so far.
    value : the loss at ``image``.
    iterate : the current image, (H, W, 3), float64, where it is computed; in NumPy a copy.
    best_value : the lowest loss so far.
    """

    iteration: int
    evaluations: int
    value: float
    iterate: Array
    best_value: float

    @property
    def image(self) -> NDArray[np.float64]:
        """The iterate in NumPy, fetched when it lies on a GPU."""
        return to_host(self.iterate)


@dataclass(frozen=True)
class Result:
    """What ``minimize`` returns.

    Parameters
    ----------
    image : the iterate with the lowest finite loss, (H, W, 3), float64.
    value : its loss.
    initial_value : the loss of the first image, before it is clipped to the bounds.
    iterations, evaluations : how many were made.
    stop : ``"iterations"``, ``"converged"``, ``"stalled"``, ``"callback"``, ``"interrupted"`` or ``"non-finite"``.
    stop_reason : the same in words.
    """

    image: NDArray[np.float64]
    value: float
    initial_value: float
    iterations: int
    evaluations: int
    stop: str
    stop_reason: str


class _StopError(Exception):
    """Leaves an optimiser early; carries ``stop`` and ``stop_reason``."""


def minimize(
    objective: DifferentiableFunction,
    initial: Array,
    method: str = "l-bfgs-b",
    iterations: int = ITERATIONS,
    bounds: tuple[float, float] | None = (0.0, 255.0),
    history: int | None = None,
    callback: Callable[[Iteration], bool | None] | None = None,
    *,
    learning_rate: float | None = None,
    momentum: float = 0.9,
    value_tolerance: float = 1e-10,
    gradient_tolerance: float = 1e-8,
    workers: Workers = SERIAL,
) -> Result:
    """Minimise ``objective`` from ``initial`` and return the best image found.

    Parameters
    ----------
    objective : value and gradient of an image.
    initial : (H, W, 3), RGB, 0..255; it is clipped to the bounds and not changed. Where it lies on a GPU, iterates,
        gradients and corrections stay there, with all methods but ``"l-bfgs-b"``; ``objective`` is an ``Objective``.
    method : ``"l-bfgs-b"`` (scipy's, the reference), ``"l-bfgs"`` (``engine.lbfgs``, a tenth of the time for itself),
        ``"adam"`` or ``"sgd"`` (gradient descent with momentum).
    iterations : at most.
    bounds : lowest and highest value of the image, or None.
    history : corrections that L-BFGS keeps; None means ``HISTORIES``. Each takes two arrays of the image's size, in
        float64 for ``"l-bfgs-b"`` and in float32 for ``"l-bfgs"``.
    callback : called after each iteration; when it returns True, the run stops.
    learning_rate : of Adam and SGD, in grey levels; None means ``LEARNING_RATES``.
    momentum : of SGD.
    value_tolerance : L-BFGS has converged when an iteration lowers the loss by less than this fraction of it (of the
        largest element of the first gradient, where the loss is below that).
        Below the rounding of a float32 network (1e-7), so that a run is not cut short while it still gets on.
    gradient_tolerance : L-BFGS has converged when no element of the projected gradient is larger than this fraction
        of the largest at the start. From noise that can be large: a millionth of it has been seen far from the end.
    workers : threads for ``"l-bfgs"``.

    A loss that is not finite ends the run with the best image so far, and so does an interruption from the keyboard.
    At the first evaluation there is none yet: then NonFiniteError is raised, and KeyboardInterrupt passes through.

    Raises ValueError for an argument that does not fit, or where the loss is complex.
    """
    if method not in METHODS:
        raise ValueError(unknown_name("optimiser", method, METHODS))
    iterations = _checked_count("iterations", iterations)
    history = _checked_count("history", HISTORIES.get(method, 1) if history is None else history)
    if history > MAX_HISTORY:
        raise ValueError(f"history must be at most {MAX_HISTORY}, got {history}")
    rate = LEARNING_RATES.get(method, 1.0) if learning_rate is None else learning_rate
    if not _is_finite(rate) or rate <= 0:
        raise ValueError(f"learning_rate must be a finite number above 0, got {rate}")
    if not _is_finite(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    for name, tolerance in (("value_tolerance", value_tolerance), ("gradient_tolerance", gradient_tolerance)):
        if not _is_finite(tolerance) or tolerance < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {tolerance}")
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    if not low < high:
        raise ValueError(f"the lower bound must be below the upper one, got {bounds}")

    on_cuda = method != "l-bfgs-b" and lives_on_cuda(initial)
    given = np.array(to_host(initial) if lives_on_cuda(initial) else initial, np.float64, order="C")
    start = np.clip(given, low, high)
    run = _Run(objective, to_cuda(start) if on_cuda else start, (low, high), iterations, callback, on_cuda)
    stop, reason = "iterations", f"reached {iterations} iterations"
    try:
        # scipy's own vector sums are split among BLAS threads too: see kernels/cpu/threads.py.
        with SERIAL.single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
            if not np.array_equal(start, given):
                run.begin_outside(to_cuda(given) if on_cuda else given)
            if method == "l-bfgs-b":
                _l_bfgs_b(run, low, high, history, value_tolerance, gradient_tolerance)
            elif method == "l-bfgs":
                _l_bfgs(run, (low, high), history, value_tolerance, gradient_tolerance, workers)
            elif method == "adam":
                _adam(run, low, high, rate)
            else:
                _sgd(run, low, high, rate, momentum)
    except _StopError as early:
        stop, reason = early.args
    except NonFiniteError as error:
        if np.isinf(run.best_value):
            raise
        stop, reason = "non-finite", str(error)
    except KeyboardInterrupt:
        if np.isinf(run.best_value):
            raise
        stop, reason = "interrupted", f"interrupted after {run.iteration} iterations"
    return Result(
        image=to_host(run.best_image),
        value=run.best_value,
        initial_value=run.initial_value,
        iterations=run.iteration,
        evaluations=run.evaluations,
        stop=stop,
        stop_reason=reason,
    )


def _checked_count(name: str, number: Any) -> int:
    try:
        count = operator.index(number)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {number}")
    return count


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except TypeError:
        return False


class _Run:
    """One minimisation: evaluates the scaled objective and remembers the best image."""

    def __init__(
        self,
        objective: DifferentiableFunction,
        start: Array,
        bounds: tuple[float, float],
        iterations: int,
        callback: Callable[[Iteration], bool | None] | None,
        on_cuda: bool,
    ) -> None:
        self._objective = objective
        self._on_cuda = on_cuda
        self._callback = callback
        self._bounded = bool(np.isfinite(bounds).all())
        self.iterations = iterations
        self.iteration = 0
        self.evaluations = 0
        self.scale = 1.0
        self.value = self.initial_value = self.best_value = np.inf
        self.best_image = start

    def evaluate(self, image: Array, launch: Callable[[Array], None] | None = None) -> tuple[float, Array]:
        """Return the scaled value and gradient of an image, which is kept: it must not be changed afterwards.

        ``launch`` is called with the scaled gradient before a GPU is waited for, except that the first gradient is
        fetched for the scale.
        """
        pending = self._begin(image)
        first = not self.evaluations
        if first:
            self._take_scale(pending)
        gradient = kernels_of(pending.gradient).scaled(pending.gradient, self.scale)
        if launch is not None:
            launch(gradient)
        self.value = self.initial_value if first else float(pending.finish())
        if self.value < self.best_value:
            self.best_value, self.best_image = self.value, image
        self.evaluations += 1
        return self.value * self.scale, gradient

    def begin_outside(self, image: Array) -> None:
        """Evaluate a first image that the bounds will move: the scale is taken from it as it was given."""
        self._take_scale(self._begin(image))
        self.evaluations += 1

    def _take_scale(self, pending: Pending) -> None:
        self.initial_value = float(pending.finish())
        largest = float(np.abs(to_host(pending.gradient)).max())
        self.scale = 1 / largest if largest > 0 else 1.0

    def _begin(self, image: Array) -> Pending:
        """Begin an evaluation; it raises NonFiniteError, at the latest when it is finished, where it is not finite."""
        if self._on_cuda:
            return self._objective.begin(image)  # type: ignore[attr-defined]  # an Objective, see minimize
        # Within finite bounds it cannot be otherwise.
        if not self._bounded and not np.isfinite(image).all():
            raise NonFiniteError("the last step made the image infinite: try a smaller learning rate")
        value, gradient = self._objective(image)
        if np.iscomplexobj(value):
            raise ValueError("the loss must be real, got a complex one: complex networks are for checking gradients")
        # The sum tells at once, unless it is too large itself.
        if not (np.isfinite(value) and (np.isfinite(gradient.sum()) or np.isfinite(gradient).all())):
            raise NonFiniteError("the loss or its gradient is not finite")
        return Pending(gradient, lambda: value)

    def finish_iteration(self, image: Array) -> None:
        """Count an iteration and tell the callback; raises _StopError when that was the last."""
        self.iteration += 1
        if self._callback is not None:
            iterate = image if self._on_cuda else image.copy()
            state = Iteration(self.iteration, self.evaluations, self.value, iterate, self.best_value)
            if self._callback(state):
                raise _StopError("callback", f"stopped by the callback after {self.iteration} iterations")
        if self.iteration >= self.iterations:
            raise _StopError("iterations", f"reached {self.iterations} iterations")

    def finish_search(self, image: Array, value: float) -> None:
        """Count an iteration of L-BFGS, which ends at ``image`` with the scaled ``value``."""
        if value != self.value * self.scale:
            # A search that used up its evaluations returns the best of them, which need not be the last.
            self.value = value / self.scale
        self.finish_iteration(image)


def _l_bfgs_b(
    run: _Run, low: float, high: float, history: int, value_tolerance: float, gradient_tolerance: float
) -> None:
    """Minimise with scipy's L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995, with the 2011 corrections).

    When its line search finds no lower point, which the rounding of a float32 network can cause, it is started afresh
    from the best image, once at each place.
    """
    shape = run.best_image.shape

    def evaluate(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = run.evaluate(flat.reshape(shape).copy())
        return value, gradient.ravel()

    while True:
        start = run.best_value
        outcome = scipy.optimize.minimize(
            evaluate,
            run.best_image.ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(np.full(run.best_image.size, low), np.full(run.best_image.size, high)),
            callback=lambda flat: run.finish_iteration(flat.reshape(shape)),
            options={
                "maxcor": history,
                "ftol": value_tolerance,
                "gtol": gradient_tolerance,
                # Iterations are counted by _Run; the line search's own limit of 20 evaluations an iteration holds.
                "maxiter": run.iterations,
                "maxfun": 20 * run.iterations + 20,
                "maxls": 20,
            },
        )
        if outcome.status == 0:
            by_gradient = "GRADIENT" in str(outcome.message).upper()
            raise _converged("gradient" if by_gradient else "value", value_tolerance, gradient_tolerance)
        if not run.best_value < start:
            raise _stalled(run)


def _l_bfgs(
    run: _Run,
    bounds: tuple[float, float],
    history: int,
    value_tolerance: float,
    gradient_tolerance: float,
    workers: Workers,
) -> None:
    """Minimise with the project's own L-BFGS, where the image lives."""
    outcome = l_bfgs(
        run.evaluate,
        run.finish_search,
        run.best_image,
        bounds,
        history,
        value_tolerance,
        gradient_tolerance,
        workers,
    )
    if outcome == "stalled":
        raise _stalled(run)
    raise _converged(outcome, value_tolerance, gradient_tolerance)


def _converged(by: str, value_tolerance: float, gradient_tolerance: float) -> _StopError:
    if by == "gradient":
        reason = f"the gradient fell below {gradient_tolerance:g} of the first gradient"
    else:
        reason = f"the loss changed by less than {value_tolerance:g} of its value"
    return _StopError("converged", f"converged: {reason}")


def _stalled(run: _Run) -> _StopError:
    return _StopError("stalled", f"the line search found no lower loss after {run.iteration} iterations")


def _adam(run: _Run, low: float, high: float, rate: float) -> None:
    """Minimise with Adam (Kingma and Ba 2015), clipped to the bounds after each step."""
    image = run.best_image
    kernels = kernels_of(image)
    mean, square = kernels.zeros(image.shape), kernels.zeros(image.shape)
    _, gradient = run.evaluate(image)
    for t in range(1, run.iterations + 1):
        image = kernels.adam_step(image, gradient, mean, square, t, rate, (low, high))
        _, gradient = run.evaluate(image)
        run.finish_iteration(image)


def _sgd(run: _Run, low: float, high: float, rate: float, momentum: float) -> None:
    """Minimise by gradient descent with momentum (Polyak 1964), clipped to the bounds after each step."""
    image = run.best_image
    kernels = kernels_of(image)
    velocity = kernels.zeros(image.shape)
    _, gradient = run.evaluate(image)
    for _ in range(run.iterations):
        image = kernels.momentum_step(image, gradient, velocity, momentum, rate, (low, high))
        _, gradient = run.evaluate(image)
        run.finish_iteration(image)
