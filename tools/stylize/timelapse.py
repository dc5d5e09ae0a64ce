"""A timelapse: how the picture came about, in all its sizes, as one animated picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import fit
from engine.optimize import Iteration, Result
from engine.stylize import Job
from tools.cli.options import levels_of
from tools.cli.progress import Progress
from tools.cli.rendering import finished
from tools.cli.session import Facts, Listener, is_made
from tools.media.animation import write_animation
from tools.media.picture import Picture, resize, to_bytes
from tools.stylize.account import NAME
from tools.stylize.task import Task

LONG_SIDE = 480
"""Of a timelapse, in pixels; a smaller picture has its own."""

USUAL_FRAMES, MOST_FRAMES = 60, 100
"""How many pictures it has where nothing is said, and how many at most: of more, every other one is left out."""

SECONDS, FIRST_SECONDS, LAST_SECONDS = 6.0, 1.0, 2.0
"""How long it takes, and how long its first and its last picture are held besides."""

SHORTEST_SECONDS = 0.04
"""What a picture is shown for at least; programs take less for a mistake."""


class Timelapse(Listener):
    """Collects pictures and writes the timelapse; tell it of each size with ``at``.

    Attributes
    ----------
    frames : so far, (H, W, 3), uint8.
    step : iterations from one to the next.
    """

    def __init__(self, task: Task, frames: list[NDArray[np.uint8]], step: int) -> None:
        self._path: Path = task.arguments.timelapse
        height, width = task.size
        self._size = fit(height, width, min(LONG_SIDE, max(height, width)))
        self._content, self._options = resize(task.content, *self._size), task.options
        iterations = levels_of(task.options) * task.options.iterations
        self.step = step or task.arguments.save_every or math.ceil(iterations / USUAL_FRAMES)
        self.frames = frames

    def at(self, progress: Progress, is_last: bool) -> Timelapse:
        """Tell of a size that begins, and whether it is the last; return itself."""
        self._progress, self._is_last = progress, is_last
        return self

    def start(self, job: Job) -> None:
        """Take the first picture."""
        if not self.frames:
            self.frames.append(self._frame(job.initial))

    def iteration(self, state: Iteration) -> None:
        """Take a picture, where one is due."""
        if state.iteration % self.step == 0:
            self.frames.append(self._frame(state.image))
            if len(self.frames) > MOST_FRAMES:
                self.frames[:] = self.frames[::2]
                self.step *= 2

    def end(self, result: Result, facts: Facts) -> None:
        """Write it, after the last size."""
        if not self._is_last or not is_made(result):
            return
        frames = [*self.frames, self._frame(result.image)]
        each = max(SECONDS / len(frames), SHORTEST_SECONDS)
        seconds = [each] * len(frames)
        seconds[0] += FIRST_SECONDS
        seconds[-1] += LAST_SECONDS
        try:
            write_animation(self._path, frames, seconds)
        except ValueError as error:
            self._progress.write(f"{NAME}: timelapse left out: {error}")
        else:
            self._progress.write(f"{NAME}: {len(frames)} pictures, {sum(seconds):.0f} s: {self._path}")

    def _frame(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Return an image at the timelapse's size, on white where it is transparent."""
        pixels = resize(Picture(image.astype(np.float32), None), *self._size).pixels
        shown, alpha = finished(pixels, self._content, self._options), self._content.alpha
        return to_bytes(shown if alpha is None else 255 + (shown - 255) * alpha[..., None])
