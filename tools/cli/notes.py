"""What a user should know of the options and pictures that were given: that some do nothing, or not what they seem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine.optimize import HISTORIES, LEARNING_RATES
from engine.optimizers import LBFGS
from kernels.cpu.threads import available_cores
from tools.cli.options import Options
from tools.media.picture import Picture

IDLE_SEED = "the seed does nothing: the picture does not begin with noise (--init noise)"


def idle_options(options: Options, paintings: int) -> list[str]:
    """Return a sentence for each option that was given and does nothing beside the others."""
    notes = []
    if options.learning_rate is not None and options.optimizer not in LEARNING_RATES:
        notes.append(f"--learning-rate does nothing: {options.optimizer} finds its own steps")
    if options.history is not None and options.history > 0 and options.optimizer not in HISTORIES:
        notes.append(f"--history does nothing: {options.optimizer} keeps no corrections")
    if options.deepest_every != Options.deepest_every and options.optimizer != LBFGS.method:
        notes.append(f"--deepest-every does nothing: with {options.optimizer} the deepest layer is looked at each time")
    if options.blend is not None and paintings == 1:
        notes.append("--blend does nothing: there is one painting")
    if options.seed != Options.seed and options.init != "noise":
        notes.append(IDLE_SEED)
    return notes


def idle_threads(threads: int | None) -> list[str]:
    """Return a sentence where there are more threads than cores to run them."""
    cores = available_cores()
    if threads is None or threads <= cores:
        return []
    return [f"--threads {threads} does no more than --threads {cores}: that is how many cores there are"]


def about_pictures(options: Options, content: Picture, styles: Sequence[Picture], size: tuple[int, int]) -> list[str]:
    """Return a sentence for a photograph that is enlarged, and for one that is its own painting.

    Parameters
    ----------
    size : (height, width) of the picture to make.
    """
    notes = []
    (height, width), (own_height, own_width) = size, content.size
    if max(own_height, own_width) < max(height, width):
        notes.append(f"the photograph has {own_width}x{own_height} pixels, it is enlarged to {width}x{height}")
    if content.alpha is not None and not content.alpha.any():
        notes.append("the photograph is wholly transparent, and so will the picture be")
    same = len(styles) == 1 and styles[0].size == content.size and np.array_equal(styles[0].pixels, content.pixels)
    if same and options.init != "noise":
        notes.append("photograph and painting are the same picture, and so will be what is made of them")
    return notes


def check_style(options: Options) -> None:
    """Raise ValueError where nothing would move the picture away from the photograph that it begins with."""
    weights = [
        chosen.values() if isinstance(chosen, Mapping) else [1.0]
        for chosen in (options.style_layers, options.style_statistics)
    ]
    has_style = options.style_weight and all(map(any, weights))
    if options.init == "content" and not has_style and options.content_weight != 0:  # both: all weights are zero
        raise ValueError(
            "the weight of the style is zero, and the picture begins with the photograph: nothing would change; give "
            "another --style-weight, or --init noise"
        )
