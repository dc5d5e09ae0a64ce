"""The step-size study: the error of difference quotients against their length, and the law that it follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from engine.gradcheck.kinks import held_objective
from engine.gradcheck.measures import along, central_difference, random_directions
from engine.gradcheck.problem import Problem, in_precision


@dataclass(frozen=True)
class StepStudy:
    """Errors of central differences of one function, and the fit ``error = truncation h^order + rounding / h``.

    Parameters
    ----------
    name : of the function.
    steps : the lengths h, in gray levels a pixel (root mean square).
    errors : relative error at each of them, root mean square over the directions.
    truncation, order, rounding : of the fit.
    best_step, best_error : the measured h with the least error, and that error.
    fitted_step : the h at which the fit is least.
    """

    name: str
    steps: tuple[float, ...]
    errors: tuple[float, ...]
    truncation: float
    order: float
    rounding: float
    best_step: float
    best_error: float
    fitted_step: float

    def fitted(self, step: float) -> float:
        """Return the error that the fit gives for a length."""
        return float(self.truncation * step**self.order + self.rounding / step)


def step_study(
    problem: Problem,
    steps: NDArray[np.float64],
    count: int,
    random: np.random.Generator,
    on_step: Callable[[], object] = lambda: None,
) -> list[StepStudy]:
    """Study the whole objective in float64 and float32, unchanged and with the pattern frozen.

    With the decisions held the function is a polynomial of the pixels, and the quotient's error falls as h^2 until
    rounding takes over. Otherwise kinks add their own error between the two.

    Parameters
    ----------
    steps : lengths h, in gray levels a pixel.
    count : directions.
    on_step : called ``4 * len(steps)`` times.
    """
    x = problem.image
    directions = random_directions(x.shape, count, random)
    slopes = along(problem.objective()(x)[1], directions)
    scale = float(np.sqrt(np.mean(slopes**2))) or 1.0
    single = in_precision(problem.network, "float32")
    smooth = held_objective(problem)
    smooth_single = problem.objective(single).through(in_precision(smooth.network, "float32"))
    functions = {
        "float64, decisions held": smooth,
        "float32, decisions held": smooth_single,
        "float64": problem.objective(),
        "float32": problem.objective(single),
    }
    studies = []
    for name, function in functions.items():
        errors = []
        for step in steps:
            quotients = np.array([central_difference(lambda y: function(y)[0], x, d, step) for d in directions])  # noqa: B023
            errors.append(float(np.sqrt(np.mean((quotients - slopes) ** 2))) / scale)
            on_step()
        studies.append(fit_steps(name, steps, np.array(errors)))
    return studies


def fit_steps(name: str, steps: NDArray[np.float64], errors: NDArray[np.float64]) -> StepStudy:
    """Fit ``truncation h^order + rounding / h`` to errors, in logarithms and with outliers damped.

    Where the errors jump, by kinks or by rounding that happens to cancel, the two branches still have to be found: the
    loss grows only linearly with what lies far off.
    """
    usable = (errors > 0) & np.isfinite(errors)
    h, e = steps[usable], np.log(errors[usable])
    if len(h) < 4:
        raise ValueError(f"a fit needs errors at four step lengths at least, got {len(h)}")

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        log_truncation, order, log_rounding = parameters
        law: NDArray[np.float64] = np.logaddexp(log_truncation + order * np.log(h), log_rounding - np.log(h))
        return law - e

    # Begin with a branch through each end.
    start = [e[-1] - 2 * np.log(h[-1]), 2.0, e[0] + np.log(h[0])]
    fit = scipy.optimize.least_squares(residuals, start, loss="soft_l1", bounds=([-200, 0.1, -200], [200, 6.0, 200]))
    truncation, order, rounding = float(np.exp(fit.x[0])), float(fit.x[1]), float(np.exp(fit.x[2]))
    best = int(np.nanargmin(errors))
    return StepStudy(
        name,
        tuple(map(float, steps)),
        tuple(map(float, errors)),
        truncation,
        order,
        rounding,
        float(steps[best]),
        float(errors[best]),
        float((rounding / (order * truncation)) ** (1 / (order + 1))),
    )
