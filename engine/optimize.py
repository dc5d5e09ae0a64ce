"""Minimizing an objective over the image, by any of the optimizers.

The loss is scaled for the optimizers so that the largest element of the first gradient is 1. A gradient tolerance of
1e-8 then means "a hundred-millionth of the first gradient" for any network and any weights, L-BFGS-B's first trial step
moves no value by more than one gray level, and a learning rate is in gray levels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import NonFiniteError, unknown_name
from engine.ops import Array
from engine.optimizers import LBFGS, OPTIMIZERS, defaults_of, optimizer_of
from engine.optimizers.l_bfgs import LONG_HISTORY, LONG_RUN
from engine.optimizers.run import DifferentiableFunction, Iteration, Result, Run, StopRunError, reached
from kernels import Cpu, Device

METHODS = tuple(OPTIMIZERS)

LEARNING_RATES = defaults_of("learning_rate")
"""Default step of each first-order method, in gray levels."""

HISTORIES = defaults_of("history")
"""Default number of corrections of each L-BFGS; see ``usual_history`` for long runs."""

ITERATIONS = 500
"""Default number of iterations at most."""

MAX_HISTORY = 1000
"""More corrections than this cost more than they can bring, in time and in memory."""

__all__ = [
    "HISTORIES",
    "LEARNING_RATES",
    "METHODS",
    "DifferentiableFunction",
    "Iteration",
    "Result",
    "minimize",
    "usual_history",
]


def usual_history(method: str, iterations: int, device: str = "cpu") -> int | None:
    """Return how many corrections an L-BFGS keeps unless told, None where a method keeps none.

    Parameters
    ----------
    device : the kind of the one that the steps are computed on. On a GPU, reading the corrections takes a larger part
        of an iteration, and a long run keeps as many as a short one.
    """
    if method == LBFGS.method and device == "cpu" and iterations > LONG_RUN:
        return LONG_HISTORY
    return HISTORIES.get(method)


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
    change_tolerance: float = 0.0,
    is_tile: bool = False,
    device: Device | None = None,
    resumable: bool = False,
    state: Mapping[str, NDArray[Any]] | None = None,
) -> Result:
    """Minimize ``objective`` from ``initial`` and return the best image found.

    Parameters
    ----------
    objective : value and gradient of an image.
    initial : (H, W, 3), RGB, 0..255; it is clipped to the bounds and not changed. Where it lies on a GPU, iterates,
        gradients and corrections stay there, with all methods but ``"l-bfgs-b"``; ``objective`` is an ``Objective``.
    method : ``"l-bfgs-b"`` (scipy's, the reference), ``"l-bfgs"`` (``engine.lbfgs``, a tenth of the overhead),
        ``"adam"`` or ``"sgd"`` (gradient descent with momentum).
    iterations : at most.
    bounds : lowest and highest value of the image, or None.
    history : corrections that L-BFGS keeps; None means ``usual_history``. Each takes two arrays of the image's size, in
        float64 for ``"l-bfgs-b"`` and in float32 for ``"l-bfgs"``.
    callback : called after each iteration; when it returns True, the run stops.
    learning_rate : of Adam and SGD, in gray levels; None means ``LEARNING_RATES``.
    momentum : of SGD.
    value_tolerance : L-BFGS has converged when an iteration lowers the loss by less than this fraction of it (of the
        largest element of the first gradient, where the loss is below that).
        The default is below the rounding of a float32 network (1e-7), so a run that still makes progress continues.
    gradient_tolerance : L-BFGS has converged when no element of the projected gradient is larger than this fraction
        of the largest at the start. The gradient of noise is large: a millionth of it can still be far from the end.
    change_tolerance : the run has converged when ten iterations have changed the image by less than this many gray
        levels, the mean over all values, looked at every ten iterations; 0 does not look.
    is_tile : whether the image goes on at its other side: ``"l-bfgs"`` then does without the grids by which it tells
        coarse from fine. They end at the edges, and the steps' coarse part would leave a seam.
    device : where the steps are computed, unless scipy does it; None means the objective's ``device`` or, if it has
        none, one thread of the CPU. The result does not depend on the number of threads.
    resumable : have each iteration's ``state()`` return where the run stands. ``"l-bfgs-b"`` alone needs to be told:
        scipy's function keeps its state to itself, so its solver is called directly, with the same results to the bit.
    state : what ``state()`` returned, in this process or another: go on from there with the same arguments. The end is
        that of an unbroken run, to the bit. ``iterations`` counts those before, ``initial`` only gives the shape. The
        arrays are taken out of it, so that none is in memory twice; hand in a copy, ``dict(state)``, to keep it.

    A loss that is not finite ends the run with the best image so far, and so does an interruption from the keyboard.
    At the first evaluation there is none yet: then NonFiniteError is raised, and KeyboardInterrupt passes through.

    Raises ValueError for an argument that does not fit, a state of something else, or if the loss is complex.

    Examples
    --------
    Any function with a gradient will do, here the squared distance from gray:

    >>> def distance(image):
    ...     return ((image - 128) ** 2).sum(), 2 * (image - 128)
    >>> result = minimize(distance, np.zeros((4, 5, 3)), method="l-bfgs", iterations=50)
    >>> bool(np.allclose(result.image, 128)), result.stop
    (True, 'converged')
    >>> minimize(distance, np.zeros((4, 5, 3)), method="adam", iterations=3).stop_reason
    'reached 3 iterations'

    A run that goes on where another was stopped:

    >>> states = []
    >>> def stop(told):
    ...     states.append({name: array.copy() for name, array in told.state().items()})
    ...     return told.iteration == 2
    >>> _ = minimize(distance, np.zeros((4, 5, 3)), method="adam", iterations=3, callback=stop)
    >>> minimize(distance, np.zeros((4, 5, 3)), method="adam", iterations=3, state=states[-1]).evaluations
    4
    """
    if method not in METHODS:
        raise ValueError(unknown_name("optimizer", method, METHODS))
    iterations = _checked_count("iterations", iterations)
    if history is not None and _checked_count("history", history) > MAX_HISTORY:
        raise ValueError(f"history must be at most {MAX_HISTORY}, got {history}")
    rate = LEARNING_RATES.get(method, 1.0) if learning_rate is None else learning_rate
    if not _is_finite(rate) or rate <= 0:
        raise ValueError(f"learning_rate must be a finite number above 0, got {rate}")
    if not _is_finite(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    tolerances = {
        "value_tolerance": value_tolerance,
        "gradient_tolerance": gradient_tolerance,
        "change_tolerance": change_tolerance,
    }
    for name, tolerance in tolerances.items():
        if not _is_finite(tolerance) or tolerance < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {tolerance}")
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    if not low < high:
        raise ValueError(f"the lower bound must be below the upper one, got {bounds}")

    device = device or getattr(objective, "device", None) or Cpu(1)
    optimizer = optimizer_of(
        method,
        history=usual_history(method, iterations, device.kind) if history is None else history,
        learning_rate=rate,
        momentum=momentum,
        value_tolerance=value_tolerance,
        gradient_tolerance=gradient_tolerance,
        grids=() if is_tile else None,
    )
    on_gpu = device.kind == "cuda" and device.holds(initial)
    given = np.array(device.fetch(initial) if on_gpu else initial, np.float64, order="C")
    start = np.clip(given, low, high)
    place = device if optimizer.on_device and (on_gpu or device.kind == "cpu") else Cpu(1)
    run = Run(
        objective,
        place.put(start),
        (low, high),
        iterations,
        callback,
        place,
        resumable or state is not None,
        state,
        change_tolerance,
    )
    if run.iteration > iterations:
        raise ValueError(f"the saved state is that of iteration {run.iteration}, more than {iterations}")
    stop, reason = "iterations", reached(iterations)
    try:
        # scipy's own vector sums are split among BLAS threads too: see kernels/cpu/threads.py.
        with Cpu.computing(), np.errstate(over="ignore", invalid="ignore"):
            if state is None and not np.array_equal(start, given):
                run.begin_outside(place.put(given))
            run.check_end()
            optimizer.minimize(run, (low, high))
    except StopRunError as early:
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
        image=place.fetch(run.best_image),
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
