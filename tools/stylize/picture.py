"""The picture: small sizes first, then its own."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import Level, coarse_to_fine
from engine.optimize import Result
from engine.stylize import Job
from tools.cli.disk import Space, picture_bytes, save_somewhere
from tools.cli.estimate import seconds_of_evaluation, seconds_of_paintings, seconds_of_run, work
from tools.cli.interruption import Postponement
from tools.cli.options import FIRST_DRAFT
from tools.cli.progress import Progress, counted, duration
from tools.cli.rendering import at_level, finished, painting_sizes, picture_levels
from tools.cli.session import Bar, Facts, Listener, Session, follow
from tools.media.files import Lines
from tools.media.picture import Picture, resize
from tools.stylize.account import NAME, Entries, Log, start_of_log, texts
from tools.stylize.checkpoint import Checkpoints, Resumed
from tools.stylize.first_draft import first_draft
from tools.stylize.listeners import Pictures, Plot, Report, Start
from tools.stylize.task import Task
from tools.stylize.timelapse import Timelapse


def make_picture(
    task: Task, session: Session, resumed: Resumed | None = None, further: Sequence[Listener] = ()
) -> Result:
    """Make the picture in all its sizes, and write it with what was asked for beside it.

    What an interruption leaves is in the session's hands: until the last size has a picture of its own, that of the one
    before is the best there is.

    Parameters
    ----------
    resumed : the checkpoint to go on from.
    further : who else follows each size.
    """

    def prepared(level: Level, image: NDArray[np.float32] | None) -> tuple[Picture, Job]:
        if image is None and resumed is not None and resumed.picture is not None:
            return task.rendering(level, resumed.picture)
        if image is None:
            return task.rendering(level, first_draft(task, level) if task.options.init == FIRST_DRAFT else task.first)
        return task.rendering(level, Picture(image, resize(task.content, *image.shape[:2]).alpha))

    path, levels = task.arguments.log, picture_levels(task.options, task.network)
    kept = 0 if resumed is None else resumed.log_bytes(path)
    needed = picture_bytes(math.prod(task.size), 3 if task.content.alpha is None else 4)
    with (
        Space(task.arguments.output, needed) as space,
        contextlib.nullcontext() if path is None else Lines(path, kept) as lines,
        Postponement() as postponement,
    ):
        log = Log(
            lines, start_of_log(task.arguments, task.filled, task.needed), begun=lines is not None and lines.size > 0
        )
        frames, step = ([], 0) if resumed is None else (resumed.frames, resumed.about["timelapse"])
        timelapse = None if task.arguments.timelapse is None else Timelapse(task, frames, step)
        checkpoints = Checkpoints(task, log, timelapse, postponement)
        if resumed is None:
            checkpoints.begin()
        run = _Run(task, session, log, space, timelapse, checkpoints, postponement, resumed, further)
        pictures = coarse_to_fine(levels if resumed is None else levels[resumed.level - 1 :], prepared)
        level, (photograph, job) = next(pictures)
        while not level.is_last:
            result = _make_small(run, level, photograph, job)
            run = dataclasses.replace(run, resumed=None)
            level, (photograph, job) = pictures.send(result)
        return _make_last(run, level, photograph, job)


@dataclass(frozen=True, eq=False)
class _Run:
    """What the sizes of a picture have in common.

    Parameters
    ----------
    space : that is kept for the picture.
    timelapse : or None.
    postponement : of an interruption.
    resumed : the checkpoint that the next size goes on from, or None.
    further : who else follows.
    since : when it was begun or gone on with, by ``time.perf_counter``.
    """

    task: Task
    session: Session
    log: Log
    space: Space
    timelapse: Timelapse | None
    checkpoints: Checkpoints
    postponement: Postponement
    resumed: Resumed | None
    further: Sequence[Listener]
    since: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def done(self) -> int:
        """The iterations of the next size that there are already."""
        return 0 if self.resumed is None else self.resumed.iteration

    def began(self) -> float:
        """Return when the next size began, by ``time.perf_counter``: time between two runs does not count."""
        return time.perf_counter() - (0.0 if self.resumed is None else self.resumed.about["seconds"])

    def follow(
        self, job: Job, listeners: Sequence[Listener], began: float, keep: Callable[[Result, Facts], None]
    ) -> Result:
        """Run a job, from the checkpoint if there is one."""
        state = None if self.resumed is None else self.resumed.state()
        resumable = self.task.arguments.checkpoint is not None
        return follow(job, [*listeners, *self.further], began, keep, resumable=resumable, state=state)[0]


def _make_small(run: _Run, level: Level, photograph: Picture, job: Job) -> Result:
    """Make the picture of a level before the last; raises KeyboardInterrupt where that was interrupted."""
    task, session, began = run.task, run.session, run.began()
    height, width = job.initial.shape[:2]
    name = f"level {level.number} of {level.count}, {width}x{height} pixels"
    shown = {"level": level.number, "levels": level.count, "width": width, "height": height}
    iterations = job.settings.iterations

    def keep(result: Result, facts: Facts) -> None:
        picture = Picture(result.image.astype(np.float32), photograph.alpha)
        # An interruption from here on is one of the next size, which has no facts of its own yet.
        next_one = {"stop": "interrupted", "level": level.number, "levels": level.count}
        ended = {**shown, **facts} if result.stop == "interrupted" else next_one
        session.keep = lambda: _write_enlarged(task, picture, ended)

    with Progress(iterations, "iterations", f"level {level.number}", quiet=task.arguments.quiet) as progress:
        value, seconds = seconds_of_evaluation(job)
        if run.done:
            progress.reach(run.done, iterations)
        of_level = seconds_of_run(job, job.settings, seconds, 0)
        sizes = painting_sizes([style.size for style in task.styles], at_level(task.options, level), (height, width))
        of_paintings = seconds_of_paintings(job, sizes, seconds)
        left = of_level * (iterations - run.done) / iterations
        larger = [1 << more for more in range(1, level.count - level.number + 1)]
        growth = sum(work(height * times, width * times) for times in larger) / work(height, width)
        remaining = left + (of_level + of_paintings) * growth
        which = f"iterations {run.done + 1} to {iterations}" if run.done else counted(iterations, "iteration")
        of_this = f"about {duration(left)} for {which}, " if run.done < iterations else ""
        progress.write(
            f"{NAME}: {name}, {seconds:.2g} s an evaluation: {of_this}about {duration(remaining)} to the end"
        )
        entries = Entries(run.log, progress, began, shown)
        listeners: list[Listener] = [] if run.timelapse is None else [run.timelapse.at(progress, is_last=False)]
        listeners += [entries, Bar(progress), run.checkpoints.at(level, progress, began)]
        if level.number == 1 and not run.done:
            listeners.append(Start(progress, entries, value))
        result = run.follow(job, listeners, began, keep)
        progress.write(
            f"{NAME}: {name}: {counted(result.iterations, 'iteration')}, loss {result.initial_value:.4g} -> "
            f"{result.value:.4g}, {duration(time.perf_counter() - began)}"
        )
    if result.stop == "interrupted" or run.postponement.asked:
        raise KeyboardInterrupt
    return result


def _write_enlarged(task: Task, level: Picture, facts: Mapping[str, Any]) -> str:
    """Write the picture of a level at the size that was asked for; return what to say of it."""
    enlarged = resize(level, *task.size)
    output = task.arguments.output
    shown = finished(enlarged.pixels, resize(task.content, *task.size), task.options)
    save_somewhere(output, shown, enlarged.alpha, texts(task.arguments, task.filled, task.inputs, facts))
    unwritten = "" if task.arguments.plot is None else "; nothing was drawn"
    return (
        f"interrupted; wrote the picture of level {facts['level']} of {facts['levels']}, enlarged, {output}{unwritten}"
    )


def _make_last(run: _Run, level: Level, photograph: Picture, job: Job) -> Result:
    """Make the picture at its own size, and write it where space is kept for it."""
    task, session = run.task, run.session
    if not task.begins_small:
        task.announce_draft()
    with Progress(task.options.iterations, "iterations", NAME, quiet=task.arguments.quiet) as progress:
        began = run.began()
        value, seconds = seconds_of_evaluation(job)
        if run.done:
            progress.reach(run.done, task.options.iterations)
        entries = Entries(run.log, progress, began)
        pictures = Pictures(task, photograph, progress, (began, run.since), run.space)
        plot = Plot(task, progress, [] if run.resumed is None else run.resumed.about["points"])

        def keep(result: Result, facts: Facts) -> None:
            session.keep = lambda: pictures.save_again(result, facts)

        listeners: list[Listener] = [] if run.timelapse is None else [run.timelapse.at(progress, is_last=True)]
        listeners += [plot, entries, pictures, Report(task, progress, entries, seconds, run.done)]
        if level.number == 1 and not run.done:
            listeners.append(Start(progress, entries, value))
        return run.follow(job, [*listeners, run.checkpoints.at(level, progress, began, plot)], began, keep)
