"""The picture to begin with, by the draft network: the same pictures and weights, from small to large, in seconds."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from numpy.typing import NDArray

from engine.load import load_network
from engine.multiscale import Level, coarse_to_fine, usual_levels
from engine.optimize import Result
from engine.stylize import Job
from tools.cli.progress import Progress, duration
from tools.cli.rendering import at_level, picture_levels, rendering, with_fitting_levels
from tools.cli.session import Bar, follow
from tools.media.picture import Picture
from tools.models.cache import DRAFT_FILE
from tools.models.drafting import left_out, with_draft
from tools.stylize.account import NAME
from tools.stylize.task import Task


def first_draft(task: Task, level: Level) -> Picture:
    """Return the draft network's picture at the size of a level; raises KeyboardInterrupt where it is interrupted."""
    began, options = time.perf_counter(), at_level(task.options, level)
    draft = load_network(DRAFT_FILE, pooling=options.pooling, device=options.device, threads=task.arguments.threads)
    task.tell_left_out(left_out(options, draft))
    asked = with_draft(options, task.network, draft, level.size)
    small = dataclasses.replace(asked, levels=usual_levels(level.size))
    small = with_fitting_levels(small, draft, task.content.size, [style.size for style in task.styles], None)

    def prepared(size: Level, image: NDArray[np.float32] | None) -> Job:
        first = None if image is None else Picture(image, None)
        of_size = at_level(small, size)
        return rendering(draft, of_size, task.content, task.styles, first, task.masks, task.coarse)[1]

    levels = picture_levels(small, draft)
    with Progress(len(levels) * small.iterations, "iterations", "draft", quiet=task.arguments.quiet) as progress:
        bar, pictures = Bar(progress), coarse_to_fine(levels, prepared)
        size, job = next(pictures)
        while True:
            result: Result = follow(job, [bar], began)[0]
            if result.stop == "interrupted":
                raise KeyboardInterrupt
            if size.is_last:
                break
            bar.complete(small.iterations, "")
            size, job = pictures.send(result)
        progress.write(
            f"{NAME}: begins with the draft network's picture, {result.image.shape[1]}x{result.image.shape[0]} pixels, "
            f"{duration(time.perf_counter() - began)}"
        )
    return Picture(result.image.astype(np.float32), None)
