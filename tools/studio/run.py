"""One picture being made, in a thread of its own, that takes commands from others: pause, go on, change, stop.

A command is heard after each iteration. A change ends the minimization, so that its curvature is thrown away, and
another begins from the same image with what is left of the iterations. A run that is left alone is that of the command
line to the bit: the same levels, each begun with the float32 image of the one before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import fit
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.optimizers.run import reached
from engine.stylize import Job, shares
from tools.cli.command_line import describe
from tools.cli.estimate import seconds_of_evaluation
from tools.cli.options import levels_of
from tools.cli.rendering import finished, picture_levels, rendering
from tools.media.picture import Picture, resize
from tools.models.cache import DRAFT
from tools.models.drafting import LONG_SIDE, with_draft
from tools.studio.order import Order
from tools.studio.ready import Ready

SHOWN_SECONDS = 0.25
"""The picture is shown at most so often."""

Read = Callable[[Order], Ready]
Start = Callable[[Ready, Picture | None], tuple[Picture, Job]]


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as it stands.

    Parameters
    ----------
    version : how many there were before it.
    pixels, alpha : (H, W, 3), 0..255, and (H, W) or None.
    """

    version: int
    pixels: NDArray[Any]
    alpha: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to.

    Parameters
    ----------
    pixels, alpha : of the picture, at the size that was asked for.
    order : with what was changed on the way.
    facts : how it ended.
    steered : whether anything was changed, or it was stopped before its end: the order alone does not give the picture.
    """

    pixels: NDArray[Any]
    alpha: NDArray[np.float32] | None
    order: Order
    facts: dict[str, Any]
    steered: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """What came of the draft, or of one size.

    Parameters
    ----------
    photograph : at this size.
    result : of the minimization.
    """

    photograph: Picture
    result: Result


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Parameters
    ----------
    status : ``"waiting"``, ``"reading"``, ``"running"``, ``"paused"`` or ``"ended"``.
    stage : ``"draft"`` or ``"picture"``.
    level, levels : which of the sizes, from 1.
    width, height : of the picture at this level.
    iteration, iterations : of this level.
    evaluations : of all levels, as the optimizer counts them.
    loss : at the last iteration.
    evaluation_seconds, left_seconds : how long one takes, and all that remain; None where nothing is known.
    shown, before : the versions of the picture as it stands, and as it stood before the last change; 0 for none.
    note : what there is to say.
    """

    status: str = "waiting"
    stage: str = "draft"
    level: int = 0
    levels: int = 0
    width: int = 0
    height: int = 0
    iteration: int = 0
    iterations: int = 0
    evaluations: int = 0
    loss: float | None = None
    evaluation_seconds: float | None = None
    left_seconds: float | None = None
    shown: int = 0
    before: int = 0
    note: str = ""


class Run:
    """One picture to make; ``make`` makes it, and any other thread may give commands meanwhile.

    Parameters
    ----------
    number : names it to the page.
    order : what is to be made.
    ring : called whenever something about it has changed.
    """

    def __init__(self, number: int, order: Order, ring: Callable[[], None]) -> None:
        self.number = number
        self.then_larger: int | None = None
        self._ring = ring
        self._condition = threading.Condition()
        self._order, self._wanted = order, order
        self._paused = self._stopped = self._steered = False
        self._state = State()
        self._points: list[dict[str, Any]] = []
        self._marks: list[dict[str, Any]] = []
        self._shown: Shown | None = None
        self._before: Shown | None = None
        self._shown_at = 0.0
        self._last: Iteration | None = None
        self._steps = 0

    # ---- what the page sees ----

    @property
    def order(self) -> Order:
        """What is to be made, with the last change."""
        with self._condition:
            return self._wanted

    @property
    def state(self) -> State:
        """Where it stands."""
        with self._condition:
            return self._state

    @property
    def shown(self) -> Shown | None:
        """The picture as it stands."""
        return self._shown

    @property
    def before(self) -> Shown | None:
        """The picture as it stood before the last change."""
        return self._before

    @property
    def steered(self) -> bool:
        """Whether anything was changed."""
        return self._steered

    def points(self, first: int = 0) -> list[dict[str, Any]]:
        """Return the losses of the iterations from one on, and each term's share."""
        with self._condition:
            return self._points[first:]

    @property
    def marks(self) -> list[dict[str, Any]]:
        """Where a level began, or something was changed."""
        with self._condition:
            return list(self._marks)

    # ---- commands ----

    def pause(self) -> None:
        """Wait after this iteration."""
        with self._condition:
            self._paused = True

    def resume(self) -> None:
        """Go on."""
        with self._condition:
            self._paused = False
            self._condition.notify_all()

    def stop(self, then_larger: int | None = None) -> None:
        """End after this iteration, and keep the best picture.

        Parameters
        ----------
        then_larger : size of a picture that is to go on from it, for the queue.
        """
        with self._condition:
            self._stopped, self._paused = True, False
            self.then_larger = then_larger
            self._condition.notify_all()

    def change(self, order: Order) -> None:
        """Take other weights, masks or colors from the next iteration on.

        Raises ValueError for what cannot be changed while the picture is being made.
        """
        with self._condition:
            self._wanted = self._wanted.changed(order)

    # ---- the work ----

    def make(self, read: Read, draft: Callable[[Ready], Network], measured: Callable[[Job, float], None]) -> Outcome:
        """Make the picture.

        Parameters
        ----------
        read : gives an order's pictures and its network.
        draft : gives the draft network.
        measured : told of each level's job how long an evaluation takes.

        Raises ValueError where it cannot be made.
        """
        began = time.perf_counter()
        self._set(status="reading")
        ready = read(self._order)
        self._set(note=" ".join(ready.notes))
        stage: Stage | None = None
        if _begins_with_draft(ready):
            try:
                ready, stage = self._minimize(ready, None, read, _draft_starter(draft(ready)), 0)
            except ValueError as error:  # it costs nothing but a first look
                self._set(note=" ".join([*ready.notes, f"no draft: {describe(error)}"]))
        image: Picture | None = None
        number = 1
        while number <= levels_of(ready.options) and not (self._stopped and stage is not None):
            ready, stage = self._minimize(ready, image, read, _level_starter(number), number, measured)
            image = Picture(stage.result.image.astype(np.float32), stage.photograph.alpha)
            number += 1
        assert stage is not None  # there is at least one level
        return self._outcome(ready, stage, began)

    def _minimize(
        self,
        ready: Ready,
        image: Picture | None,
        read: Read,
        start: Start,
        number: int,
        measured: Callable[[Job, float], None] = lambda job, seconds: None,
    ) -> tuple[Ready, Stage]:
        """Make the draft, or the picture at one of its sizes; return what came of it, with what was changed.

        Parameters
        ----------
        image : to begin with, or None for that of the order.
        start : gives the job.
        number : of the level, 0 for the draft.
        """
        self._mark("level" if number else "draft")
        done = 0
        while True:
            ready, (photograph, job), seconds = self._begin(ready, image, read, start)
            measured(job, seconds)
            left = max(job.settings.iterations - done, 1)
            height, width = job.initial.shape[:2]
            self._set(
                status="running",
                stage="picture" if number else "draft",
                level=number,
                levels=levels_of(ready.options),
                height=height,
                width=width,
                iteration=done,
                iterations=done + left,
                evaluation_seconds=seconds,
            )
            job = replace(job, settings=replace(job.settings, iterations=left))
            result = job.run(self._follower(job, photograph, done))
            done += result.iterations
            if result.stop != "callback" or self._stopped:
                return ready, Stage(photograph, result)
            assert self._last is not None  # it was the callback that ended the job
            image = Picture(self._last.image.astype(np.float32), photograph.alpha)

    def _begin(
        self, ready: Ready, image: Picture | None, read: Read, start: Start
    ) -> tuple[Ready, tuple[Picture, Job], float]:
        """Return a job that has been evaluated once, for the order as it was changed if that can be, else as it is."""
        with self._condition:
            wanted = self._wanted
        if wanted != self._order:
            # As many sizes as there are: one that a painting has become too small for is no change to be made now.
            options = replace(wanted.options, levels=ready.options.levels)
            try:
                changed = read(replace(wanted, options=options))
                begun = start(changed, image)
                seconds = seconds_of_evaluation(begun[1])[1]
            except (ValueError, ArithmeticError) as error:
                with self._condition:
                    if self._wanted is wanted:
                        self._wanted = self._order
                self._set(note=f"this was not changed: {describe(error)}")
            else:
                self._order, self._steered, self._before = wanted, True, self._shown
                self._set(note=" ".join(changed.notes), before=0 if self._shown is None else self._shown.version)
                self._mark("changed")
                return changed, begun, seconds
        begun = start(ready, image)
        return ready, begun, seconds_of_evaluation(begun[1])[1]

    def _follower(self, job: Job, photograph: Picture, done: int) -> Callable[[Iteration], bool]:
        """Return what is called after each iteration of a job: it shows the picture and hears the commands.

        Parameters
        ----------
        done : iterations at this size before this job.
        """
        left = job.settings.iterations
        begun, evaluations = time.perf_counter(), self._state.evaluations

        def follow(state: Iteration) -> bool:
            nonlocal begun
            self._last = state  # its image is fetched, from a GPU, when it is looked at
            parts = shares(job.objective.weighted(state.terms))
            named = {f"{kind} {name}": share for kind, names in parts.items() for name, share in names.items()}
            with self._condition:
                self._steps += 1
                self._points.append({"step": self._steps, "loss": state.value, "shares": named})
            each = (time.perf_counter() - begun) / state.iteration
            self._set(
                iteration=done + state.iteration,
                evaluations=evaluations + state.evaluations,
                loss=state.value,
                left_seconds=self._left(each, left - state.iteration),
            )
            with self._condition:
                leaving = self._stopped or self._wanted != self._order
                waiting = self._paused and not leaving
            due = time.perf_counter() - self._shown_at >= SHOWN_SECONDS
            if due or leaving or waiting or state.iteration == left:
                self._show(finished(state.image, photograph, self._order.options), photograph.alpha)
            if waiting:
                begun += self._wait()
            with self._condition:
                return self._stopped or self._wanted != self._order

        return follow

    def _left(self, each: float, iterations: int) -> float | None:
        """Return how long the rest takes, if an iteration takes ``each``, and four times as long at the next size."""
        state = self._state
        if state.stage == "draft":
            return None
        later = sum(4.0**more for more in range(1, state.levels - state.level + 1))
        return each * (iterations + later * state.iterations)

    def _wait(self) -> float:
        """Wait to go on; return for how many seconds."""
        before = time.perf_counter()
        self._set(status="paused")
        with self._condition:
            self._condition.wait_for(lambda: not self._paused)
        self._set(status="running")
        return time.perf_counter() - before

    def _outcome(self, ready: Ready, stage: Stage, began: float) -> Outcome:
        """Return the picture, enlarged where the run was stopped at a smaller size."""
        result, state = stage.result, self._state
        whole = state.stage == "picture" and state.level == state.levels
        pixels: NDArray[Any] = result.image
        photograph = stage.photograph
        if not whole:
            enlarged = resize(Picture(pixels.astype(np.float32), photograph.alpha), *ready.plan.size)
            pixels, photograph = enlarged.pixels, replace(resize(ready.content, *ready.plan.size), alpha=enlarged.alpha)
        pixels, alpha = finished(pixels, photograph, self._order.options), photograph.alpha
        reason = reached(ready.options.iterations) if result.stop == "iterations" else result.stop_reason
        facts = {
            "loss": result.value,
            "iterations": self._steps,
            "evaluations": state.evaluations,
            "stop": "stopped" if self._stopped else result.stop,
            "stop_reason": "stopped" if self._stopped else reason,
            "seconds": round(time.perf_counter() - began, 1),
            "enlarged_from": None if whole else [state.width, state.height],
        }
        self._show(pixels, alpha)
        self._set(status="ended", left_seconds=0.0)
        return Outcome(pixels, alpha, self._order, facts, self._steered or self._stopped)

    def _show(self, pixels: NDArray[Any], alpha: NDArray[np.float32] | None) -> None:
        version = 1 if self._shown is None else self._shown.version + 1
        self._shown, self._shown_at = Shown(version, pixels, alpha), time.perf_counter()
        self._set(shown=version)

    def _mark(self, kind: str) -> None:
        with self._condition:
            self._marks.append({"step": self._steps, "kind": kind})

    def _set(self, **changes: Any) -> None:
        with self._condition:
            self._state = replace(self._state, **changes)
        self._ring()


def _begins_with_draft(ready: Ready) -> bool:
    """Tell whether there is to be a draft: not where the picture goes on from one, or is as small and as fast."""
    return ready.first is None and (max(ready.plan.size) > LONG_SIDE or ready.options.model != DRAFT)


def _draft_starter(network: Network) -> Start:
    """Return what starts a draft with the draft network."""

    def start(ready: Ready, image: Picture | None) -> tuple[Picture, Job]:
        size = max(fit(*ready.content.size, min(ready.options.size, LONG_SIDE)))
        options = with_draft(ready.options, ready.plan.network, network, size)
        return rendering(network, options, ready.content, ready.styles, image, ready.masks)

    return start


def _level_starter(number: int) -> Start:
    """Return what starts the picture at one of its sizes."""

    def start(ready: Ready, image: Picture | None) -> tuple[Picture, Job]:
        return ready.rendering(picture_levels(ready.options, ready.plan.network)[number - 1], image)

    return start
