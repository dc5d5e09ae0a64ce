"""The small runs behind ``--suggest``: from pictures and options to ``engine.calibrate``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from engine.calibrate import LONG_SIDE, Pilot, pilot_settings, suggest_content_weights
from engine.network import Network
from engine.selection import Layers, layer_names
from engine.stylize import Job
from tools.cli.options import Options
from tools.cli.rendering import picture_size, rendering
from tools.media.picture import Picture, resize


def suggest(
    network: Network,
    options: Options,
    content: Picture,
    styles: Sequence[Picture],
    first: Picture | None,
    count: int,
    follow: Callable[[Pilot], None],
) -> list[float]:
    """Return content weights from where the painting rules to where the photograph does, in even ratios.

    Parameters
    ----------
    network, options : of the pictures to come.
    content, styles, first : as ``tools.cli.rendering.rendering`` takes them.
    count : how many weights; at least 2.
    follow : called after each small run.

    Raises ValueError for options or pictures that do not fit, and when the weight makes no difference.
    """
    content_layers, style_layers = _weights(options.content_layers), _weights(options.style_layers)
    if not (options.style_weight and any(style_layers) and any(content_layers)):
        raise ValueError(
            "a content weight can only be suggested where content and style count: give --style-weight and, of both "
            "kinds, one layer at least a weight above 0"
        )
    style_size = options.style_size
    if isinstance(style_size, int):  # the painting's strokes keep their size relative to the picture
        style_size = max(1, round(style_size * min(1.0, LONG_SIDE / options.size)))
    small = dataclasses.replace(pilot_settings(options), size=min(options.size, LONG_SIDE), style_size=style_size)
    size, small_size = (picture_size(content.size, each) for each in (options, small))

    def prepare_pilot(content_weight: float) -> Job:
        weighted = dataclasses.replace(small, content_weight=content_weight)
        return rendering(network, weighted, content, styles, first)[1]

    area = math.prod(size) / math.prod(small_size)
    return suggest_content_weights(prepare_pilot, resize(content, *small_size).pixels, area, count, follow)


def _weights(layers: Layers) -> list[float]:
    return list(layers.values()) if isinstance(layers, Mapping) else [1.0] * len(layer_names(layers))
