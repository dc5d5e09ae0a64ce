"""The project's own L-BFGS, on the device where the image lives; the method is in ``engine.lbfgs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.lbfgs import GRIDS, l_bfgs
from engine.optimizers.run import Run, converged, stalled

LONG_RUN, LONG_HISTORY = 100, 60
"""In more iterations than these, this many corrections need fewer of them for the same loss, measured on the CPU."""


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with bounds, with a tenth of the overhead of scipy's.

    Parameters
    ----------
    history : corrections that it keeps, each two arrays of the image's size in float32; measured best at equal cost.
    value_tolerance, gradient_tolerance : see ``engine.optimize.minimize``.
    grids : pixels from node to node of those by which it tells coarse from fine; none for a tile.
    """

    history: int = 20
    value_tolerance: float = 1e-10
    gradient_tolerance: float = 1e-8
    grids: tuple[int, ...] = GRIDS

    method: ClassVar[str] = "l-bfgs"
    on_device: ClassVar[bool] = True
    seconds_per_value: ClassVar[tuple[float, float]] = (0.0, 4e-8)

    @property
    def vectors(self) -> int:
        """How many arrays of the image's size in float64 it holds, images and gradients among them."""
        return self.history + 16

    def minimize(self, run: Run, bounds: tuple[float, float]) -> None:
        """Minimize until a tolerance is met or no lower point is found; ends by raising."""
        tolerances = self.value_tolerance, self.gradient_tolerance
        outcome = l_bfgs(
            run.device,
            run.evaluate,
            run.finish_search,
            run.best_image,
            bounds,
            self.history,
            *tolerances,
            run.saved,
            self.grids,
        )
        raise stalled(run) if outcome == "stalled" else converged(outcome, *tolerances)
