"""Methods that look at the gradient alone: Adam, and gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.optimizers.run import Run


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), clipped to the bounds after each step.

    Parameters
    ----------
    learning_rate : in gray levels.
    """

    learning_rate: float = 10.0

    method: ClassVar[str] = "adam"
    on_device: ClassVar[bool] = True
    seconds_per_value: ClassVar[tuple[float, float]] = (0.0, 3e-8)
    vectors: ClassVar[int] = 12

    def minimize(self, run: Run, bounds: tuple[float, float]) -> None:
        """Make as many steps as the run has iterations."""
        image = run.best_image
        mean, square = run.device.zeros(image.shape), run.device.zeros(image.shape)
        _, gradient = run.evaluate(image)
        for t in range(1, run.iterations + 1):
            image = run.device.adam_step(image, gradient, mean, square, t, self.learning_rate, bounds)
            _, gradient = run.evaluate(image)
            run.finish_iteration(image)


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum (Polyak 1964), clipped to the bounds after each step.

    Parameters
    ----------
    learning_rate : in gray levels.
    momentum : what stays of the last step, at least 0 and below 1.
    """

    learning_rate: float = 10.0
    momentum: float = 0.9

    method: ClassVar[str] = "sgd"
    on_device: ClassVar[bool] = True
    seconds_per_value: ClassVar[tuple[float, float]] = (0.0, 2e-8)
    vectors: ClassVar[int] = 12

    def minimize(self, run: Run, bounds: tuple[float, float]) -> None:
        """Make as many steps as the run has iterations."""
        image = run.best_image
        velocity = run.device.zeros(image.shape)
        _, gradient = run.evaluate(image)
        for _ in range(run.iterations):
            image = run.device.momentum_step(image, gradient, velocity, self.momentum, self.learning_rate, bounds)
            _, gradient = run.evaluate(image)
            run.finish_iteration(image)
