"""What a picture's run is followed by at its own size: reports, snapshots, the picture itself, the plot."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.optimize import Iteration, Result
from engine.stylize import Job
from tools.cli.command_line import describe
from tools.cli.curve import Curve
from tools.cli.disk import Space, save_somewhere
from tools.cli.estimate import seconds_of_run
from tools.cli.progress import Progress, counted, duration
from tools.cli.rendering import finished
from tools.cli.session import Bar, Facts, Listener, is_made, standing, standing_at_end
from tools.media.picture import Picture
from tools.media.plot import plot_losses
from tools.media.saving import save_image
from tools.stylize.account import NAME, Entries, texts
from tools.stylize.task import Task


class Plot(Curve):
    """Draws the losses, if that was asked for.

    Parameters
    ----------
    points : of the iterations before this run goes on.
    """

    def __init__(self, task: Task, progress: Progress, points: list[list[float]]) -> None:
        super().__init__()
        self._arguments, self._progress = task.arguments, progress
        self.points = points

    def end(self, result: Result, facts: Facts) -> None:
        """Draw them."""
        path: Path | None = self._arguments.plot
        if path is None or not self.points:
            return
        paintings = " and ".join(style.name for style in self._arguments.style)
        plot_losses(path, self.names, self.points, f"{self._arguments.content.name} in the style of {paintings}")
        self._progress.write(f"{NAME}: drew the losses in {path}")


class Pictures(Listener):
    """Writes the picture and its snapshots.

    Parameters
    ----------
    content : the photograph at the picture's size.
    began : when this size did, and the run, by ``time.perf_counter``.
    space : on the disk, kept for the picture.
    """

    def __init__(
        self, task: Task, content: Picture, progress: Progress, began: tuple[float, float], space: Space
    ) -> None:
        self._task, self._arguments, self._options, self._inputs = task, task.arguments, task.filled, task.inputs
        self._content, self._progress, self._began, self._space = content, progress, began, space

    def iteration(self, state: Iteration) -> None:
        """Write a snapshot, where one is due."""
        every, last = self._arguments.save_every, self._options.iterations
        if every and state.iteration % every == 0 and state.iteration < last:
            output: Path = self._arguments.output
            path = output.with_stem(f"{output.stem}-{state.iteration:0{len(str(last))}d}")
            try:
                save_image(path, self._shown(state.image), self._content.alpha, self._texts(None))
            except ValueError as error:  # a full disk shall not cost the picture itself
                self._progress.write(f"{NAME}: snapshot left out: {describe(error)}")

    def end(self, result: Result, facts: Facts) -> None:
        """Write the picture, and say how it ended."""
        if is_made(result):
            self._save(result, facts)
            of_size, in_all = (duration(time.perf_counter() - began) for began in self._began)
            self._progress.write(
                f"{NAME}: {result.stop_reason}; loss {result.initial_value:.4g} -> {result.value:.4g} in "
                f"{counted(result.evaluations, 'evaluation')}, {of_size}"
                f"{f', {in_all} in all' if self._task.begins_small else ''}; wrote {self._arguments.output}"
            )

    def save_again(self, result: Result, facts: Facts) -> str:
        """Write the picture where the end was interrupted; return what to say of it."""
        self._save(result, facts)
        return f"interrupted at the end; wrote {self._arguments.output}"

    def _save(self, result: Result, facts: Facts) -> None:
        self._space.release()
        image = self._shown(result.image)
        save_somewhere(self._arguments.output, image, self._content.alpha, self._texts(facts))

    def _shown(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        return finished(image, self._content, self._options)

    def _texts(self, facts: Facts | None) -> dict[str, str]:
        return texts(self._arguments, self._options, self._inputs, facts)


class Start(Listener):
    """Tells the terms' shares of loss and gradient at the first image; ``value`` is the loss there."""

    def __init__(self, progress: Progress, entries: Entries, value: float) -> None:
        self._progress, self._entries, self._value = progress, entries, value

    def start(self, job: Job) -> None:
        """Tell them."""
        _report(self._progress, self._entries, "start", 0, self._value, standing(job, job.initial))


class Report(Bar):
    """Says how long the run will take, moves the bar, and tells now and then the terms' shares of loss and gradient.

    Parameters
    ----------
    seconds : how long an evaluation takes.
    done : iterations before this run goes on.
    """

    def __init__(self, task: Task, progress: Progress, entries: Entries, seconds: float, done: int = 0) -> None:
        super().__init__(progress)
        self._task, self._entries, self._seconds, self._done = task, entries, seconds, done

    def start(self, job: Job) -> None:
        """Say how long it will take."""
        self._job = job
        iterations, every = self._task.options.iterations, self._task.arguments.report_every
        left = dataclasses.replace(self._task.options, iterations=iterations - self._done)
        first = 0 if self._done or self._task.begins_small else 1
        reports = first + (iterations - 1) // every - self._done // every + 1
        takes = duration(seconds_of_run(job, left, self._seconds, reports))
        more = f"iterations {self._done + 1} to {iterations}" if self._done else counted(iterations, "iteration")
        time_needed = f"{self._seconds:.2g} s an evaluation: about {takes} for {more}"
        if self._task.begins_small:
            self._say(time_needed)
        else:
            *of_model, memory = self._task.introduction
            for line in of_model:
                self._say(line)
            self._say(f"{memory}, {time_needed}")

    def iteration(self, state: Iteration) -> None:
        """Move the bar, and report where that is due."""
        super().iteration(state)
        if state.iteration % self._task.arguments.report_every == 0 and state.iteration < self._task.options.iterations:
            self._report(f"iteration {state.iteration}", state.iteration, state.value, standing(self._job, state.image))

    def end(self, result: Result, facts: Facts) -> None:
        """Report how the terms stand at the picture."""
        self.progress.close()
        found = standing_at_end(self._job, result)
        if found is not None:
            facts |= self._report("end", result.iterations, result.value, found)

    def _report(self, when: str, iteration: int, value: float, found: Facts) -> Facts:
        return _report(self.progress, self._entries, when, iteration, value, found)

    def _say(self, line: str) -> None:
        self.progress.write(f"{NAME}: {line}")


def _report(progress: Progress, entries: Entries, when: str, iteration: int, value: float, found: Facts) -> Facts:
    """Print and record the terms' shares of the loss and of the gradient."""
    loss, gradient = found["loss_shares"], found["gradient_shares"]
    progress.write(f"{NAME}: {when}: loss {value:.4g}, of which {_percentages(loss)}")
    progress.write(f"{NAME}: {when}: gradient {_percentages(gradient)}")
    told = {"loss_shares": loss, "gradient_shares": gradient}
    entries.write({"event": "shares", "iteration": iteration, **told})
    return told


def _percentages(parts: Mapping[str, Mapping[str, float]]) -> str:
    """Return shares as ``content 12 % (conv4_2 12 %), style 88 % (conv1_1 3 %, ...)``."""
    kinds = []
    for kind, layers in parts.items():
        if layers:
            listed = ", ".join(f"{layer} {_percent(share)}" for layer, share in layers.items())
            kinds.append(f"{kind} {_percent(sum(layers.values()))} ({listed})")
    return ", ".join(kinds)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"
