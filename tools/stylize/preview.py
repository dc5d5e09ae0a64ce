"""A look at where a picture is going before minutes are spent on it: the draft network at a small size."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Mapping

from engine.load import load_network
from engine.multiscale import fit
from engine.network import Network
from engine.objective import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS, Layers, layer_names
from engine.stylize import content_weight_at, content_weight_of
from tools.cli.options import Options
from tools.cli.progress import Progress, duration
from tools.cli.rendering import rendering
from tools.cli.session import Bar, follow
from tools.media.saving import save_image
from tools.models.cache import DRAFT, DRAFT_FILE
from tools.stylize.account import NAME, texts
from tools.stylize.outputs import preview_path, same_file
from tools.stylize.task import Task

LONG_SIDE = 256
ITERATIONS = 100


def make_preview(task: Task) -> bool:
    """Make the picture's preview; return whether it was interrupted, after which there is to be no picture either."""
    began = time.perf_counter()
    arguments, options = task.arguments, task.options
    height, width = fit(*task.content.size, min(options.size, LONG_SIDE))
    if (height, width) == task.size and same_file(task.model, DRAFT_FILE):
        task.say("no preview: the picture itself is by the draft network, and no larger than one would be")
        return False
    draft = load_network(DRAFT_FILE, pooling=options.pooling, device=options.device, threads=arguments.threads)
    small = _with_draft(options, task.network, draft, max(height, width))
    path = preview_path(arguments.output)
    with Progress(small.iterations, "iterations", "preview", quiet=arguments.quiet) as progress:
        content, job = rendering(draft, small, task.content, task.styles, task.first, task.masks)
        result, facts = follow(job, [Bar(progress)], began)
        stopped = result.stop == "interrupted"
        save_image(path, result.image, content.alpha, texts(arguments, small, facts))
        took = duration(time.perf_counter() - began)
        progress.write(
            f"{NAME}: preview by the draft network, {width}x{height} pixels, {result.iterations} iterations, {took}: "
            f"{path}{'; interrupted, so there is no picture' if stopped else ''}"
        )
    return stopped


def _with_draft(options: Options, network: Network, draft: Network, size: int) -> Options:
    """Return the options that take the draft network where ``options`` take ``network``.

    The content weight keeps its distance to the one recommended for the network. Layers that the draft network does not
    have are left out, and if none is left, the paper's stand in.

    Parameters
    ----------
    size : long side of the preview in pixels.
    """
    ratio = size / options.size
    given = content_weight_of(options, network, options.size) / network.content_weight
    # The paintings stand to the preview as they will stand to the picture.
    style_size = options.style_size or options.size
    return dataclasses.replace(
        options,
        content_layers=_kept(options.content_layers, draft.outputs) or PAPER_CONTENT_LAYERS,
        style_layers=_kept(options.style_layers, draft.outputs) or PAPER_STYLE_LAYERS,
        content_weight=content_weight_at(draft.content_weight * given, ratio**2),
        iterations=min(options.iterations, ITERATIONS),
        optimizer="l-bfgs",
        learning_rate=None,
        history=None,
        model=DRAFT,
        dtype="float32",
        size=size,
        style_size=max(1, round(style_size * ratio)) if isinstance(style_size, int) else style_size,
        levels=1,
    )


def _kept(layers: Layers, known: Container[str]) -> Layers:
    names = [name for name in layer_names(layers) if name in known]
    return {name: layers[name] for name in names} if isinstance(layers, Mapping) else names
