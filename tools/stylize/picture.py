"""The picture: small sizes first, then its own."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import Level, coarse_to_fine
from engine.optimize import Result
from engine.stylize import Job
from tools.cli.disk import Space, picture_bytes, save_somewhere
from tools.cli.estimate import seconds_of_evaluation, seconds_of_paintings, seconds_of_run
from tools.cli.progress import Progress, duration
from tools.cli.rendering import at_level, painting_sizes, picture_levels
from tools.cli.session import Bar, Facts, Session, follow
from tools.media.files import Lines
from tools.media.picture import Picture, resize
from tools.stylize.account import NAME, Entries, Log, start_of_log, texts
from tools.stylize.listeners import Pictures, Plot, Report
from tools.stylize.task import Task


def make_picture(task: Task, session: Session) -> Result:
    """Make the picture in all its sizes, and write it with what was asked for beside it.

    What an interruption leaves is in the session's hands: until the last size has a picture of its own, that of the one
    before is the best there is.
    """

    def prepared(level: Level, image: NDArray[np.float32] | None) -> tuple[Picture, Job]:
        if image is None:
            return task.rendering(level, task.first)
        return task.rendering(level, Picture(image, resize(task.content, *image.shape[:2]).alpha))

    path = task.arguments.log
    needed = picture_bytes(math.prod(task.size), 3 if task.content.alpha is None else 4)
    with (
        Space(task.arguments.output, needed) as space,
        contextlib.nullcontext() if path is None else Lines(path) as lines,
    ):
        log = Log(lines, start_of_log(task.arguments, task.filled, task.needed))
        pictures = coarse_to_fine(picture_levels(task.options, task.network), prepared)
        level, (photograph, job) = next(pictures)
        while not level.is_last:
            result = _make_small(task, session, log, level, photograph, job)
            level, (photograph, job) = pictures.send(result)
        return _make_last(task, session, log, space, photograph, job)


def _make_small(task: Task, session: Session, log: Log, level: Level, photograph: Picture, job: Job) -> Result:
    """Make the picture of a level before the last; raises KeyboardInterrupt where that was interrupted."""
    began = time.perf_counter()
    height, width = job.initial.shape[:2]
    name = f"level {level.number} of {level.count}, {width}x{height} pixels"
    shown = {"level": level.number, "levels": level.count, "width": width, "height": height}
    iterations = job.settings.iterations

    def keep(result: Result, facts: Facts) -> None:
        picture = Picture(result.image.astype(np.float32), photograph.alpha)
        ended = {"stop": "interrupted", "level": level.number, "levels": level.count}
        ended = {**shown, **facts} if result.stop == "interrupted" else ended
        session.keep = lambda: _write_enlarged(task, picture, ended)

    with Progress(iterations, "iterations", f"level {level.number}", quiet=task.arguments.quiet) as progress:
        _, seconds = seconds_of_evaluation(job)
        took = seconds_of_run(job, job.settings, seconds, 0)
        # An evaluation takes four times as long from level to level, and so does a look at the paintings.
        sizes = painting_sizes([style.size for style in task.styles], at_level(task.options, level), (height, width))
        looked = seconds_of_paintings(job, sizes, seconds)
        remaining = took + sum((took + looked) * 4**more for more in range(1, level.count - level.number + 1))
        progress.write(
            f"{NAME}: {name}, {seconds:.2g} s an evaluation: about {duration(took)} for {iterations} "
            f"iterations, about {duration(remaining)} to the end"
        )
        result, _ = follow(job, [Entries(log, progress, began, shown), Bar(progress)], began, keep)
        progress.write(
            f"{NAME}: {name}: {result.iterations} iterations, loss {result.initial_value:.4g} -> "
            f"{result.value:.4g}, {duration(time.perf_counter() - began)}"
        )
    if result.stop == "interrupted":
        raise KeyboardInterrupt
    return result


def _write_enlarged(task: Task, level: Picture, facts: Mapping[str, Any]) -> str:
    """Write the picture of a level at the size that was asked for; return what to say of it."""
    enlarged = resize(level, *task.size)
    output = task.arguments.output
    save_somewhere(output, enlarged.pixels, enlarged.alpha, texts(task.arguments, task.filled, facts))
    unwritten = "" if task.arguments.plot is None else "; nothing was drawn"
    return (
        f"interrupted; wrote the picture of level {facts['level']} of {facts['levels']}, enlarged, {output}{unwritten}"
    )


def _make_last(task: Task, session: Session, log: Log, space: Space, photograph: Picture, job: Job) -> Result:
    """Make the picture at its own size, and write it where ``space`` is kept for it."""
    if not task.begins_small:
        task.announce_draft()
    with Progress(task.options.iterations, "iterations", NAME, quiet=task.arguments.quiet) as progress:
        began = time.perf_counter()
        value, seconds = seconds_of_evaluation(job)
        entries = Entries(log, progress, began)
        pictures = Pictures(task, photograph, progress, began, space)

        def keep(result: Result, facts: Facts) -> None:
            session.keep = lambda: pictures.save_again(result, facts)

        listeners = [Plot(task, progress), entries, pictures, Report(task, progress, entries, value, seconds)]
        return follow(job, listeners, began, keep)[0]
