"""The checks along the path of an optimization: gradients must be right where a run passes, not only at its start.

Toward a minimum the terms of a gradient cancel, and what is left carries the rounding of all of them: it is allowed as
much as at the start, and so more in relation to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.gradcheck.checks import Check, check_objective
from engine.gradcheck.precision import PrecisionStudy, precision_study
from engine.gradcheck.problem import Problem, in_precision
from engine.optimize import Iteration, minimize


@dataclass(frozen=True)
class Station:
    """The checks at one iterate.

    Parameters
    ----------
    iteration : which; 0 is the beginning.
    value : the loss there.
    at_bounds : share of the pixels' values that stand at 0 or 255.
    allowed : by what the tolerances are larger than at the start, as much as the gradient is smaller.
    checks : of the whole objective, with these tolerances.
    precision : of the ways of computing.
    """

    iteration: int
    value: float
    at_bounds: float
    allowed: float
    checks: tuple[Check, ...]
    precision: tuple[PrecisionStudy, ...]


def path_study(
    problem: Problem,
    iterations: tuple[int, ...],
    count: int,
    random: np.random.Generator,
    on_step: Callable[[], object] = lambda: None,
) -> list[Station]:
    """Minimize the loss in float32 and repeat the checks at some iterates.

    Parameters
    ----------
    iterations : the iterates, rising, beginning with 0. A run that ends early is checked at its best, which
        goes by the number of its last.
    count : random directions.
    on_step : called once an iteration, ``iterations[-1]`` times, and once for each station.
    """
    images: dict[int, NDArray[np.float64]] = {0: problem.image}
    last = 0

    def follow(state: Iteration) -> None:
        nonlocal last
        last = state.iteration
        if state.iteration in iterations:
            images[state.iteration] = state.image
        on_step()

    if iterations[-1] > 0:
        fast = in_precision(problem.network, "float32", "auto")
        result = minimize(
            problem.objective(fast),
            problem.image,
            "l-bfgs",
            iterations[-1],
            callback=follow,
        )
        if last < iterations[-1]:
            images[last] = result.image
    for _ in range(iterations[-1] - last):
        on_step()
    stations: list[Station] = []
    first, objective = 0.0, problem.objective()
    for iteration, image in images.items():
        there = replace(problem, image=image)
        value, gradient = objective(image)
        norm = float(np.linalg.norm(gradient))
        first = first or norm
        allowed = max(first / norm, 1.0) if norm else 1.0
        checks = check_objective(there, count, random, subject=f"iterate {iteration}")
        stations.append(
            Station(
                iteration,
                float(value),
                float(np.mean((image <= 0) | (image >= 255))),
                allowed,
                tuple(replace(check, tolerance=check.tolerance * allowed) for check in checks),
                tuple(precision_study(there)),
            )
        )
        on_step()
    return stations
