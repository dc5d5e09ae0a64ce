"""Which content weights are worth looking at for a photograph, a painting and a model, found out by small runs.

The content loss grows with the square of the activations and the style loss with their fourth power, so that no weight
suits two networks; and the content loss is a sum over the pixels while the style loss is not, so that none suits two
sizes. What can be compared is how much of the photograph is left: between none, where the style alone decides, and all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.network import Network
from engine.objective import Layers, layer_names
from engine.ops import Array
from engine.stylize import Job
from tools.images import Picture
from tools.options import Options
from tools.rendering import first_evaluation, picture_size, rendering

LONG_SIDE = 128
ITERATIONS = 200
"""At most; as many as the picture gets where these are fewer: from noise, the content comes with the iterations."""

KEPT = (0.1, 0.9)
"""From the first to the last suggested weight this much of the photograph is kept."""

FLAT = 0.01
"""Where ten times the weight keeps no more than this of the photograph in addition, more weight is of no use."""

MOST_RUNS = 14

LIMITS = (1e-30, 1e30)
"""Content weights beyond these come of other weights that are absurd, and leave the range of float32."""


@dataclass(frozen=True)
class Pilot:
    """A small run.

    Parameters
    ----------
    content_weight : for the picture's own size.
    kept : of the photograph: 1 minus the content loss in units of what it is where the style alone decides.
    missed : of the painting: the style loss in units of the photograph's own.
    """

    content_weight: float
    kept: float
    missed: float


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
    content, styles, first : as ``tools.rendering.rendering`` takes them.
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
    small = dataclasses.replace(
        options,
        size=min(options.size, LONG_SIDE),
        style_size=style_size,
        iterations=min(options.iterations, ITERATIONS),
        optimizer="l-bfgs",
        learning_rate=None,
        history=None,
    )
    pixels, small_pixels = (math.prod(picture_size(content.size, each)) for each in (options, small))
    area = pixels / small_pixels

    def prepared(content_weight: float) -> tuple[Picture, Job]:
        weighted = dataclasses.replace(small, content_weight=content_weight)
        return rendering(network, weighted, content, styles, first)

    photograph, job = prepared(0.0)
    first_evaluation(job)
    _, style_of_photograph = _losses(job, photograph.pixels)
    content_of_texture, _ = _losses(job, job.run().image)
    if not content_of_texture or not style_of_photograph:
        raise ValueError("the content weight makes no difference: the photograph fits the style already")

    def pilot(content_weight: float) -> Pilot:
        _, job = prepared(content_weight * area)
        content_loss, style_loss = _losses(job, job.run().image)
        found = Pilot(content_weight, 1 - content_loss / content_of_texture, style_loss / style_of_photograph)
        follow(found)
        return found

    # Where photograph and texture cost the same; a little content less buys much style, so the middle lies below.
    balance = options.style_weight * style_of_photograph / (content_of_texture * area)
    if not LIMITS[0] <= balance <= LIMITS[1]:
        raise ValueError(
            f"content and style balance at a content weight of {balance:.0e} only, expected {LIMITS[0]:g} to "
            f"{LIMITS[1]:g}: give --style-weight, or the layers, weights nearer to 1"
        )
    pilots = [pilot(balance / 10)]
    while pilots[0].kept > KEPT[0] and len(pilots) < MOST_RUNS:
        pilots.insert(0, pilot(pilots[0].content_weight / 10))
    while pilots[-1].kept < KEPT[1] and len(pilots) < MOST_RUNS and not _flat(pilots):
        pilots.append(pilot(pilots[-1].content_weight * 10))
    low, high = (crossing(pilots, kept) for kept in KEPT)
    return spread(low, high, count)


def _flat(pilots: Sequence[Pilot]) -> bool:
    """Say whether the last tenfold of the weight brought nothing, as where the iterations are too few for more."""
    if len(pilots) < 2 or pilots[-1].kept <= KEPT[0]:
        return False
    return pilots[-1].kept - pilots[-2].kept < FLAT


def _weights(layers: Layers) -> list[float]:
    return list(layers.values()) if isinstance(layers, Mapping) else [1.0] * len(layer_names(layers))


def crossing(pilots: Sequence[Pilot], kept: float) -> float:
    """Return the content weight at which this much is kept, between two runs by straight line over its logarithm.

    ``pilots`` go up in weight. Where it is crossed nowhere, the end that comes nearer.
    """
    for low, high in itertools.pairwise(pilots):
        if low.kept <= kept < high.kept:
            part = (kept - low.kept) / (high.kept - low.kept)
            return low.content_weight * float((high.content_weight / low.content_weight) ** part)
    return pilots[0].content_weight if kept < pilots[0].kept else pilots[-1].content_weight


def spread(low: float, high: float, count: int) -> list[float]:
    """Return ``count`` numbers from about ``low`` to about ``high`` in even ratios, each of one digit."""
    ratio = (high / low) ** (1 / (count - 1))
    numbers = [float(f"{low * ratio**index:.0e}") for index in range(count)]
    if len(set(numbers)) < count:  # too near to each other for one digit
        numbers = [float(f"{low * ratio**index:.2e}") for index in range(count)]
    return numbers


def _losses(job: Job, image: Array) -> tuple[float, float]:
    """Return the content and the style loss at an image, without alpha and beta."""
    objective = job.objective
    objective(image)
    terms = objective.terms
    content = sum(weight * terms["content"][layer] for layer, weight in objective.content_layers.items())
    style = sum(weight * terms["style"][layer] for layer, weight in objective.style_layers.items())
    return float(content), float(style)
