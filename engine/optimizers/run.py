"""One minimization: it evaluates the scaled objective, remembers the best image and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import NonFiniteError
from engine.objective import Pending
from engine.ops import Array
from engine.saved import Saved, State
from kernels import Device


class DifferentiableFunction(Protocol):
    """What is minimized: an ``Objective``, or any function of the image with its gradient."""

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
    device : that the iterate lies on.
    terms : of the loss at the last evaluation, as ``Objective.terms``; none of a function without.
    state : returns the ``State``; raises ValueError where there is none, see ``minimize``.
    """

    iteration: int
    evaluations: int
    value: float
    iterate: Array
    best_value: float
    device: Device
    terms: Mapping[str, Mapping[str, Any]]
    state: Callable[[], State]

    @property
    def image(self) -> NDArray[np.float64]:
        """The iterate in NumPy, fetched when it lies on a GPU."""
        return self.device.fetch(self.iterate)


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


CHANGE_ITERATIONS = 10
"""Over how many iterations it is looked at how much the image changes."""


class StopRunError(Exception):
    """Leaves an optimizer early; carries ``stop`` and ``stop_reason``."""


class Run:
    """One minimization: evaluates the scaled objective and remembers the best image."""

    def __init__(
        self,
        objective: DifferentiableFunction,
        start: Array,
        bounds: tuple[float, float],
        iterations: int,
        callback: Callable[[Iteration], bool | None] | None,
        device: Device,
        resumable: bool = False,
        state: Mapping[str, NDArray[Any]] | None = None,
        change_tolerance: float = 0.0,
    ) -> None:
        self._objective = objective
        self.device = device
        self._callback = callback
        self._bounded = bool(np.isfinite(bounds).all())
        self.iterations = iterations
        self.iteration = 0
        self.evaluations = 0
        self.scale = 1.0
        self.value = self.initial_value = self.best_value = np.inf
        self.best_image = start
        self.resumable = resumable
        self._change_tolerance, self._change = change_tolerance, np.inf
        self._seen = device.fetch(start) if change_tolerance else None
        self.saved: Saved | None = None if state is None else Saved(state, device)
        if self.saved is not None:
            numbers, counts = self.saved.host("numbers", (4,)), self.saved.host("counts", (2,), np.int64)
            self.scale, self.value, self.initial_value, self.best_value = (float(number) for number in numbers)
            self.iteration, self.evaluations = (int(count) for count in counts)
            self.best_image = self.saved.array("best", start.shape)
            if change_tolerance:
                self._seen, self._change = self.saved.host("seen", start.shape), self.saved.number("change")
            if not (np.isfinite(numbers).all() and self.scale > 0 and 0 < self.iteration <= self.evaluations):
                raise self.saved.misfit("numbers")

    def evaluate(self, image: Array, launch: Callable[[Array], None] | None = None) -> tuple[float, Array]:
        """Return the scaled value and gradient of an image, which is kept: it must not be changed afterward.

        ``launch`` is called with the scaled gradient before a GPU is waited for, except that the first gradient is
        fetched for the scale.
        """
        pending = self._begin(image)
        first = not self.evaluations
        if first:
            self._take_scale(pending)
        gradient = self.device.scaled(pending.gradient, self.scale)
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
        largest = float(np.abs(self.device.fetch(pending.gradient)).max())
        self.scale = 1 / largest if largest > 0 else 1.0

    def _begin(self, image: Array) -> Pending:
        """Begin an evaluation; it raises NonFiniteError, at the latest when it is finished, where it is not finite."""
        if self.device.kind == "cuda":
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

    def finish_iteration(self, image: Array, state: Callable[[], Mapping[str, Array]] | None = None) -> None:
        """Count an iteration and tell the callback; raises StopRunError when that was the last.

        Parameters
        ----------
        state : returns the optimizer's own part of the ``State``, as far as the optimizer has one.
        """
        self.iteration += 1
        if self._change_tolerance and self.iteration % CHANGE_ITERATIONS == 0:
            seen = np.array(self.device.fetch(image))
            self._change, self._seen = float(np.abs(seen - self._seen).mean()), seen
        if self._callback is not None:
            iterate = image if self.device.kind == "cuda" else image.copy()
            told = Iteration(
                self.iteration,
                self.evaluations,
                self.value,
                iterate,
                self.best_value,
                self.device,
                getattr(self._objective, "terms", {}),
                lambda: self._state(state),
            )
            if self._callback(told):
                raise StopRunError("callback", f"stopped by the callback after {self.iteration} iterations")
        self.check_end()

    def check_end(self) -> None:
        """Raise StopRunError when the image hardly changes any more, or there is no iteration left."""
        if self._change < self._change_tolerance:
            raise StopRunError(
                "converged",
                f"converged: the picture changed by less than {self._change_tolerance:g} gray "
                f"level{'' if self._change_tolerance == 1 else 's'} in {CHANGE_ITERATIONS} iterations",
            )
        if self.iteration >= self.iterations:
            raise StopRunError("iterations", reached(self.iterations))

    def _state(self, of_optimizer: Callable[[], Mapping[str, Array]] | None) -> State:
        if of_optimizer is None:
            raise ValueError("this run keeps no state: begin it with resumable=True")
        own = {
            "numbers": np.array([self.scale, self.value, self.initial_value, self.best_value]),
            "counts": np.array([self.iteration, self.evaluations], np.int64),
            "best": self.best_image,
        }
        if self._seen is not None:
            own |= {"seen": self._seen, "change": np.array(self._change)}
        arrays = own | dict(of_optimizer())
        return {name: self.device.fetch(one) if self.device.holds(one) else one for name, one in arrays.items()}

    def finish_search(self, image: Array, value: float, state: Callable[[], Mapping[str, Array]] | None = None) -> None:
        """Count an iteration of L-BFGS, which ends at ``image`` with the scaled ``value``."""
        if value != self.value * self.scale:
            # A search that used up its evaluations returns the best of them, which need not be the last.
            self.value = value / self.scale
        self.finish_iteration(image, state)


def reached(iterations: int) -> str:
    """Return the reason of a run that has made all of its iterations."""
    return f"reached {iterations} iteration{'' if iterations == 1 else 's'}"


def converged(by: str, value_tolerance: float, gradient_tolerance: float) -> StopRunError:
    """Return what ends a run that has met a tolerance, ``"gradient"`` or ``"value"``."""
    if by == "gradient":
        reason = f"the gradient fell below {gradient_tolerance:g} of the first gradient"
    else:
        reason = f"the loss changed by less than {value_tolerance:g} of its value"
    return StopRunError("converged", f"converged: {reason}")


def stalled(run: Run) -> StopRunError:
    """Return what ends a run whose line search finds no lower point."""
    return StopRunError("stalled", f"the line search found no lower loss after {run.iteration} iterations")
