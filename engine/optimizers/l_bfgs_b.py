"""scipy's L-BFGS-B, the reference."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from engine.optimizers.run import Run, converged, stalled
from engine.optimizers.setulb import SEARCH_EVALUATIONS, Evaluate, Solver, check_solver
from engine.saved import Saved


@dataclass(frozen=True)
class LBFGSB:
    """scipy's L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995, with the 2011 corrections).

    Parameters
    ----------
    history : corrections that it keeps, each two arrays of the image's size in float64; scipy's own default.
    value_tolerance, gradient_tolerance : see ``engine.optimize.minimize``.
    """

    history: int = 10
    value_tolerance: float = 1e-10
    gradient_tolerance: float = 1e-8

    method: ClassVar[str] = "l-bfgs-b"
    on_device: ClassVar[bool] = False
    seconds_per_value: ClassVar[tuple[float, float]] = (3e-6, 2.5e-7)

    def __post_init__(self) -> None:
        # It brings a BLAS of its own, whose threads a run limits as it begins: so it is loaded before.
        importlib.import_module("scipy.optimize")

    @property
    def vectors(self) -> int:
        """How many arrays of the image's size in float64 it holds, images and gradients among them."""
        # Its workspace is 2 history + 5; its lists of bounds take up as much as 20 more.
        return 2 * self.history + 40

    def minimize(self, run: Run, bounds: tuple[float, float]) -> None:
        """Minimize until a tolerance is met or no lower point is found; ends by raising.

        When its line search finds no lower point, which the rounding of a float32 network can cause, it is started
        afresh from the best image, once at each place.
        """
        if run.resumable:
            check_solver()
        saved, shape = run.saved, run.best_image.shape

        def evaluate(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, gradient = run.evaluate(flat.reshape(shape).copy())
            return value, gradient.ravel()

        # Iterations are counted by Run; the line search's own limit of 20 evaluations an iteration holds.
        evaluations = SEARCH_EVALUATIONS * (run.iterations + 1)
        while True:
            start = run.best_value if saved is None else saved.number("start")
            if run.resumable:
                met = self._by_steps(run, bounds, evaluate, evaluations, start, saved)
            else:
                met = self._at_once(run, bounds, evaluate, evaluations)
            if met is not None:
                raise converged(met, self.value_tolerance, self.gradient_tolerance)
            if not run.best_value < start:
                raise stalled(run)
            saved = None

    def _by_steps(
        self,
        run: Run,
        bounds: tuple[float, float],
        evaluate: Evaluate,
        evaluations: int,
        start: float,
        saved: Saved | None,
    ) -> str | None:
        """Minimize with a state that is known; return which tolerance was met, if any."""
        shape = run.best_image.shape
        solver = Solver(run.best_image.ravel(), bounds, self.history, self.value_tolerance, self.gradient_tolerance)
        if saved is not None:
            solver.restore(saved)

        def finish(flat: NDArray[np.float64]) -> None:
            run.finish_iteration(flat.reshape(shape), lambda: {"start": np.array(start), **solver.state()})

        return solver.solve(evaluate, finish, evaluations)

    def _at_once(self, run: Run, bounds: tuple[float, float], evaluate: Evaluate, evaluations: int) -> str | None:
        """Minimize by scipy's public function; return which tolerance was met, if any."""
        shape, size = run.best_image.shape, run.best_image.size
        outcome = scipy.optimize.minimize(
            evaluate,
            run.best_image.ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(*(np.full(size, bound) for bound in bounds)),
            callback=lambda flat: run.finish_iteration(flat.reshape(shape)),
            options={
                "maxcor": self.history,
                "ftol": self.value_tolerance,
                "gtol": self.gradient_tolerance,
                "maxiter": run.iterations,
                "maxfun": evaluations,
                "maxls": SEARCH_EVALUATIONS,
            },
        )
        if outcome.status != 0:
            return None
        return "gradient" if "GRADIENT" in str(outcome.message).upper() else "value"
