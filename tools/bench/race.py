"""Whole runs beside each other: which loss each optimizer, here and in PyTorch, has reached after which time."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from tools.bench.programs import ENGINE, TORCH, build_twin
from tools.media.plot import plot_courses
from tools.models.torch_vgg import OPTIMIZERS, minimize_with_torch

MARKS = (50, 100, 200, 300, 500)
"""Evaluations after which the losses are shown."""

USUAL = "L-BFGS, lr 1"
"""PyTorch's run that the others are measured by: what its users' programs do."""


@dataclass(frozen=True)
class Course:
    """A run.

    Parameters
    ----------
    racer : the program and its optimizer.
    seconds : from the beginning to the end of each evaluation.
    losses : of each evaluation.
    """

    racer: str
    seconds: Sequence[float]
    losses: Sequence[float]

    @property
    def lowest(self) -> list[float]:
        """The lowest loss so far."""
        return list(accumulate(self.losses, min))

    def reached(self, loss: float) -> int | None:
        """Return with which evaluation, from 1, it got down to a loss; None if it did not."""
        found = bisect_left(self.lowest, -loss, key=lambda one: -one)
        return found + 1 if found < len(self.losses) else None


@dataclass(frozen=True)
class Race:
    """All runs on one pair of pictures.

    Parameters
    ----------
    title : what was to be made.
    courses : the engine's first.
    """

    title: str
    courses: Sequence[Course]

    @property
    def usual(self) -> Course:
        """PyTorch's usual run."""
        return next(course for course in self.courses if course.racer.endswith(USUAL))

    @property
    def target(self) -> float:
        """The lowest loss of PyTorch's usual run."""
        return self.usual.lowest[-1]

    @property
    def ratio(self) -> float | None:
        """The time of PyTorch's usual run by that of the engine to its loss; None where it did not get there."""
        ours = self.courses[0]
        reached = ours.reached(self.target)
        return None if reached is None else self.usual.seconds[-1] / ours.seconds[reached - 1]


def run_race(
    network: Network,
    pictures: tuple[Array, Array, Array],
    title: str,
    content_weight: float,
    evaluations: int,
    on_step: Callable[[str], object],
    rivals: Sequence[str] = OPTIMIZERS,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Let the engine's L-BFGS and PyTorch's optimizers minimize the same loss from the same image, one by one.

    Parameters
    ----------
    network : in float32, of the CPU.
    pictures : photograph, painting and the image to begin with, (H, W, 3), RGB, 0..255.
    title : what is to be made.
    content_weight : alpha.
    evaluations : of each run.
    on_step : called after each of them, with the racer.
    rivals : PyTorch's optimizers, of ``tools.models.torch_vgg.OPTIMIZERS``; the usual one among them.
    clock : returns the time in seconds.
    """
    content, style, initial = pictures
    objective = Objective(network, content, style, content_weight=content_weight)
    courses = [_our_course(objective, initial, evaluations, on_step, clock)]
    layout = _faster_layout(network, pictures, clock)
    twin = build_twin(network, content, style, layout, content_weight)
    for name in rivals:
        racer, seconds = f"torch, {name}", list[float]()
        began = clock()

        def after(racer: str = racer, began: float = began, seconds: list[float] = seconds) -> None:
            seconds.append(clock() - began)
            on_step(racer)

        run = minimize_with_torch(twin, initial, evaluations, name, history=100, on_evaluation=after, clock=clock)
        courses.append(Course(racer, seconds, run.values))
    return Race(title, courses)


def _our_course(
    objective: Objective, initial: Array, evaluations: int, on_step: Callable[[str], object], clock: Callable[[], float]
) -> Course:
    racer, seconds, losses = f"{ENGINE}, l-bfgs", list[float](), list[float]()
    began = clock()

    def timed(image: Array) -> tuple[Any, Array]:
        value, gradient = objective(image)
        seconds.append(clock() - began)
        losses.append(value)
        on_step(racer)
        return value, gradient

    minimize(
        timed,
        initial,
        "l-bfgs",
        evaluations,
        device=objective.device,
        callback=lambda state: state.evaluations >= evaluations,
    )
    return Course(racer, seconds[:evaluations], losses[:evaluations])


def _faster_layout(network: Network, pictures: tuple[Array, Array, Array], clock: Callable[[], float]) -> str:
    """Return the layout with which PyTorch is faster, by one evaluation each behind one that nobody times."""
    content, style, initial = pictures
    seconds = {}
    for layout in TORCH.values():
        twin = build_twin(network, content, style, layout)
        pixels = twin.tensor(initial)
        twin.evaluate(pixels)
        began = clock()
        twin.evaluate(pixels)
        seconds[layout] = clock() - began
    return min(seconds, key=lambda layout: seconds[layout])


def rows_of(race: Race) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of a race."""
    most = max(len(course.losses) for course in race.courses)
    marks = [mark for mark in MARKS if mark <= most] or [most]
    header = ["program", *(f"loss, {mark}" for mark in marks), "seconds", "each", "target", "after"]
    rows = []
    for course in race.courses:
        lowest, reached = course.lowest, course.reached(race.target)
        row = [course.racer, *(f"{lowest[mark - 1]:.4g}" if mark <= len(lowest) else "-" for mark in marks)]
        row += [f"{course.seconds[-1]:.0f}", f"{course.seconds[-1] / len(lowest):.2f}"]
        row += ["-", "-"] if reached is None else [f"{course.seconds[reached - 1]:.1f} s", str(reached)]
        rows.append(row)
    return header, rows


def notes_of(race: Race) -> list[str]:
    """Return what is to be known of the table of a race."""
    said = "did not get there" if race.ratio is None else f"was there {race.ratio:.2f} times as fast"
    return [
        f"target: the lowest loss of torch, {USUAL}, {race.target:.4g}; the engine {said}",
        "loss, N: the lowest after N evaluations. PyTorch's runs have no bounds, the engine's stay within 0..255.",
    ]


def as_json(race: Race) -> dict[str, Any]:
    """Return all numbers."""
    return {**asdict(race), "target": race.target, "ratio": race.ratio}


def draw(race: Race, path: Path) -> None:
    """Draw the losses over seconds and over evaluations."""
    lines = [
        (course.racer, list(course.seconds), [one if math.isfinite(one) else None for one in course.lowest])
        for course in race.courses
    ]
    plot_courses(path, lines, race.title)
