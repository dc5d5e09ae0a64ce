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
        shape = run.best_image.shape
        if run.saved is None:
            image, mean, square = run.best_image, run.device.zeros(shape), run.device.zeros(shape)
            _, gradient = run.evaluate(image)
        else:
            image, gradient, mean, square = (
                run.saved.array(name, shape) for name in ("image", "gradient", "mean", "square")
            )
        for t in range(run.iteration + 1, run.iterations + 1):
            image = run.device.adam_step(image, gradient, mean, square, t, self.learning_rate, bounds)
            _, gradient = run.evaluate(image)
            state = {"image": image, "gradient": gradient, "mean": mean, "square": square}
            run.finish_iteration(image, state.copy)


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
        shape = run.best_image.shape
        if run.saved is None:
            image, velocity = run.best_image, run.device.zeros(shape)
            _, gradient = run.evaluate(image)
        else:
            image, gradient, velocity = (run.saved.array(name, shape) for name in ("image", "gradient", "velocity"))
        for _ in range(run.iteration, run.iterations):
            image = run.device.momentum_step(image, gradient, velocity, self.momentum, self.learning_rate, bounds)
            _, gradient = run.evaluate(image)
            run.finish_iteration(image, {"image": image, "gradient": gradient, "velocity": velocity}.copy)
