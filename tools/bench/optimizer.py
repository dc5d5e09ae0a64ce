"""A whole run of an optimizer, and what of its time is the optimizer's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.network import Network
from engine.ops import Array
from engine.optimize import Iteration, minimize
from tools.bench.programs import ENGINE, TORCH, build_twin
from tools.models.subject import build_objective, pictures
from tools.models.torch_vgg import minimize_with_torch


@dataclass(frozen=True)
class OptimizerRun:
    """A whole run of an optimizer.

    Parameters
    ----------
    size : side of the square image in pixels.
    program : who.
    iterations : how many were made; None where the optimizer does not tell.
    evaluations : how many were made.
    seconds : of the run.
    evaluating : the part of it inside the evaluations; the rest is the optimizer's own.
    starting : the part of that rest before the end of the first iteration; None where the optimizer does not tell.
    initial_value, value : the first loss and the lowest.
    """

    size: int
    program: str
    iterations: int | None
    evaluations: int
    seconds: float
    evaluating: float
    starting: float | None
    initial_value: float
    value: float

    @property
    def overhead(self) -> float:
        """The seconds outside the evaluations."""
        return self.seconds - self.evaluating


def measure_run(
    network: Network,
    size: int,
    seed: int,
    layout: str | None,
    iterations: int,
    on_step: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    method: str = "l-bfgs-b",
) -> list[OptimizerRun]:
    """Time a whole run of an optimizer, and PyTorch's L-BFGS with as many evaluations.

    Parameters
    ----------
    network : in float32.
    size : side of the square image in pixels.
    seed : of the images.
    layout : of PyTorch, None for the engine alone.
    iterations : of the engine's run.
    on_step : called ``iterations`` times in all for each program.
    clock : returns the time in seconds.
    method : of ``engine.optimize.minimize``.
    """
    content, style, image = pictures(size, seed)
    objective = build_objective(network, content, style)
    evaluating, starting = 0.0, 0.0

    def timed(image: Array) -> tuple[Any, Array]:
        nonlocal evaluating
        began = clock()
        result = objective(image)
        evaluating += clock() - began
        return result

    def callback(state: Iteration) -> None:
        nonlocal starting
        if state.iteration == 1:
            starting = clock() - began - evaluating
        on_step()

    began = clock()
    result = minimize(timed, image, method, iterations, callback=callback, device=network.device)
    seconds = clock() - began
    for _ in range(iterations - result.iterations):
        on_step()
    runs = [
        OptimizerRun(
            size,
            f"{ENGINE}, {method}",
            result.iterations,
            result.evaluations,
            seconds,
            evaluating,
            starting,
            result.initial_value,
            result.value,
        )
    ]
    if layout is not None:
        twin = build_twin(network, content, style, layout)
        twin(image)
        steps = _Shared(iterations, result.evaluations, on_step)
        theirs = minimize_with_torch(twin, image, result.evaluations, on_evaluation=lambda _: steps.one(), clock=clock)
        program = next(name for name, value in TORCH.items() if value == layout)
        runs.append(
            OptimizerRun(
                size,
                program,
                None,
                theirs.evaluations,
                theirs.seconds,
                theirs.evaluating,
                None,
                theirs.initial_value,
                theirs.value,
            )
        )
    return runs


class _Shared:
    """Calls ``on_step`` ``steps`` times, spread over ``calls`` calls of ``one``."""

    def __init__(self, steps: int, calls: int, on_step: Callable[[], object]) -> None:
        self.steps, self.calls, self.on_step = steps, calls, on_step
        self.called = 0

    def one(self) -> None:
        before, self.called = self.called, self.called + 1
        for _ in range(self.called * self.steps // self.calls - before * self.steps // self.calls):
            self.on_step()
