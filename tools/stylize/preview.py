"""A look at where a picture is going before minutes are spent on it: the draft network at a small size."""

from __future__ import annotations

import time
from dataclasses import replace

from engine.load import load_network
from tools.cli.command_line import describe
from tools.cli.progress import Progress, counted, duration
from tools.cli.rendering import finished, picture_size, rendering
from tools.cli.session import Bar, follow
from tools.media.files import sha256_of
from tools.media.saving import save_image
from tools.models.cache import DRAFT_FILE
from tools.models.drafting import LONG_SIDE, left_out, with_draft
from tools.stylize.account import NAME, texts
from tools.stylize.outputs import preview_path, same_file
from tools.stylize.task import Task


def preview_was_interrupted(task: Task) -> bool:
    """Make the picture's preview; tell whether that was interrupted, after which there is to be no picture either.

    One that cannot be made costs nothing but itself: the draft network may lack what the picture's has.
    """
    try:
        return _make_preview(task)
    except ValueError as error:
        task.say(f"no preview: {describe(error)}")
        return False


def _make_preview(task: Task) -> bool:
    began = time.perf_counter()
    arguments, options = task.arguments, task.options
    height, width = picture_size(task.content.size, replace(options, size=min(options.size, LONG_SIDE)))
    if (height, width) == task.size and same_file(task.model, DRAFT_FILE):
        task.say("no preview: the picture itself is by the draft network, and no larger than one would be")
        return False
    draft = load_network(DRAFT_FILE, pooling=options.pooling, device=options.device, threads=arguments.threads)
    task.tell_left_out(left_out(options, draft))
    small = with_draft(options, task.network, draft, max(height, width))
    path, inputs = preview_path(arguments.output), {**task.inputs, "model": sha256_of(DRAFT_FILE)}
    with Progress(small.iterations, "iterations", "preview", quiet=arguments.quiet) as progress:
        content, job = rendering(draft, small, task.content, task.styles, task.first, task.masks, task.coarse)
        result, facts = follow(job, [Bar(progress)], began)
        stopped = result.stop == "interrupted"
        text = texts(arguments, small, inputs, facts)
        save_image(path, finished(result.image, content, small), content.alpha, text)
        took = f"{counted(result.iterations, 'iteration')}, {duration(time.perf_counter() - began)}"
        progress.write(
            f"{NAME}: preview by the draft network, {width}x{height} pixels, {took}: "
            f"{path}{'; interrupted, so there is no picture' if stopped else ''}"
        )
    return stopped
