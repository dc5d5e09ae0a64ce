"""Whole runs beside each other: which loss each optimizer, here and in PyTorch, has reached after which time."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from engine.tangent import TangentLoss, deepest_layer
from tools.bench.programs import ENGINE, TORCH, build_twin
from tools.media.plot import Trace, plot_courses
from tools.media.record import finite
from tools.models.torch_vgg import CLAMPED, OPTIMIZERS, Tensor, TorchObjective, minimize_with_torch

MARKS = (50, 100, 200, 300, 500)
"""Evaluations after which the losses are shown."""

EVERY = 25
"""Evaluations between two at which a run without bounds is looked at as a picture."""

USUAL = ("L-BFGS, lr 1", CLAMPED)
"""PyTorch's runs that the engine is measured by: what its users' programs do."""


@dataclass(frozen=True)
class Course:
    """A run.

    Parameters
    ----------
    racer : the program and its optimizer.
    seconds : from the beginning to the end of each evaluation.
    losses : of each evaluation.
    pictures : of a run without bounds, the loss of its image within 0..255 after some of the evaluations, from 1: what
        lies outside is in no picture.
    """

    racer: str
    seconds: Sequence[float]
    losses: Sequence[float]
    pictures: Mapping[int, float] = field(default_factory=dict)

    @property
    def lowest(self) -> list[float]:
        """The lowest loss so far."""
        return list(accumulate(self.losses, min))

    @property
    def as_picture(self) -> list[float | None]:
        """The lowest loss so far of an image within 0..255; None where no finite one has been looked at."""
        if not self.pictures:
            return list(finite(self.lowest))
        found: list[float | None] = []
        for evaluation in range(1, len(self.losses) + 1):
            known = [one for one in (self.pictures.get(evaluation), *found[-1:]) if one is not None]
            found.append(min(filter(math.isfinite, known), default=None))
        return found

    @property
    def best_picture(self) -> float:
        """The lowest loss of an image within 0..255; infinite if there is no finite one."""
        return min((loss for loss in self.as_picture if loss is not None), default=math.inf)

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
    def usual(self) -> list[Course]:
        """PyTorch's usual runs."""
        return [course for course in self.courses if course.racer in {f"torch, {name}" for name in USUAL}]

    @property
    def target(self) -> float:
        """The loss of the best picture of PyTorch's usual runs; infinite if none has a finite one."""
        return min((course.best_picture for course in self.usual), default=math.inf)

    def reached(self, course: Course) -> int | None:
        """Return with which evaluation, from 1, a run had a picture as good as the target; None if it had none."""
        target = self.target
        good = (loss is not None and loss <= target < math.inf for loss in course.as_picture)
        return next((number for number, is_good in enumerate(good, 1) if is_good), None)

    @property
    def ratio(self) -> float | None:
        """The time of PyTorch's usual runs to their best picture by the engine's to one as good; None without."""
        ours, *theirs = (self._seconds_to_target(course) for course in (self.courses[0], *self.usual))
        first = min((one for one in theirs if one is not None), default=None)
        return None if ours is None or first is None else first / ours

    def _seconds_to_target(self, course: Course) -> float | None:
        reached = self.reached(course)
        return None if reached is None else course.seconds[reached - 1]


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
    rivals : PyTorch's optimizers, of ``tools.models.torch_vgg.OPTIMIZERS``; the usual ones among them.
    clock : returns the time in seconds.
    """
    content, style, initial = pictures
    objective = Objective(network, content, style, content_weight=content_weight)
    courses = [_our_course(objective, initial, evaluations, on_step, clock)]
    layout = _faster_layout(network, pictures, clock)
    twin = build_twin(network, content, style, layout, content_weight)
    courses += [_their_course(twin, initial, evaluations, name, on_step, clock) for name in rivals]
    return Race(title, courses)


def _their_course(
    twin: TorchObjective,
    initial: Array,
    evaluations: int,
    name: str,
    on_step: Callable[[str], object],
    clock: Callable[[], float],
) -> Course:
    racer, seconds, pictures, looking = f"torch, {name}", list[float](), dict[int, float](), 0.0

    def after(pixels: Tensor) -> None:
        nonlocal looking
        now = clock()
        seconds.append(now - began - looking)
        if name != CLAMPED and (len(seconds) % EVERY == 0 or len(seconds) == evaluations):
            pictures[len(seconds)], _ = twin.evaluate(pixels.clamp(0, 255))
            looking += clock() - now
        on_step(racer)

    began = clock()
    run = minimize_with_torch(twin, initial, evaluations, name, history=100, on_evaluation=after, clock=clock)
    return Course(racer, seconds, run.values, pictures)


def _our_course(
    objective: Objective, initial: Array, evaluations: int, on_step: Callable[[str], object], clock: Callable[[], float]
) -> Course:
    racer, seconds, losses = f"{ENGINE}, l-bfgs", list[float](), list[float]()
    layer = deepest_layer(objective, *initial.shape[:2])
    loss = objective if layer is None else TangentLoss(objective, layer, initial.shape)
    began = clock()

    def timed(image: Array) -> tuple[Any, Array]:
        value, gradient = loss(image)
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
    header = ["program", *(f"loss, {mark}" for mark in marks), "seconds", "each", "picture", "target", "after"]
    rows = []
    for course in race.courses:
        lowest, reached = course.lowest, race.reached(course)
        row = [course.racer, *(f"{lowest[mark - 1]:.4g}" if mark <= len(lowest) else "-" for mark in marks)]
        row += [f"{course.seconds[-1]:.0f}", f"{course.seconds[-1] / len(lowest):.2f}", f"{course.best_picture:.4g}"]
        row += ["-", "-"] if reached is None else [f"{course.seconds[reached - 1]:.1f} s", str(reached)]
        rows.append(row)
    return header, rows


def notes_of(race: Race) -> list[str]:
    """Return what is to be known of the table of a race."""
    said = "did not get there" if race.ratio is None else f"was there {race.ratio:.2f} times as fast"
    ours = race.courses[0]
    notes = [f"target: the loss of the best picture of PyTorch's usual runs, {race.target:.4g}; the engine {said}"]
    for course in race.usual:
        if course.pictures:
            lowest = course.lowest[-1]
            reached = ours.reached(lowest)
            when = "not within its evaluations" if reached is None else f"after {ours.seconds[reached - 1]:.1f} s"
            notes.append(
                f"{course.racer} has no bounds. The engine, which stays within 0..255, reached its lowest loss, "
                f"{lowest:.4g}: {when}"
            )
    notes.append(
        f"loss, N: the lowest after N evaluations; picture: within 0..255, looked at every {EVERY} evaluations of a "
        "run without bounds, while its clock stood still"
    )
    return notes


def as_json(race: Race) -> dict[str, Any]:
    """Return all numbers."""
    return {**asdict(race), "target": race.target, "ratio": race.ratio}


def draw(race: Race, path: Path) -> None:
    """Draw the losses over seconds and over evaluations."""
    traces = []
    for course in race.courses:
        traces.append(Trace(course.racer, course.seconds, finite(course.lowest)))
        if course.pictures:
            name = f"{course.racer}, within 0..255"
            traces.append(Trace(name, course.seconds, finite(course.as_picture), course.racer))
    plot_courses(path, traces, race.title, race.target)
