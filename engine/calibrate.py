"""Which content weights are worth looking at for a content image, a style image and a network, found by small runs.

The content loss grows with the square of the activations and the style loss with their fourth power, so no weight suits
two networks; and none suits two sizes, see ``engine.stylize.content_weight_at``. What can be compared is how
much of the content image is left: between none, where the style alone decides, and all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.ops import Array
from engine.stylize import AnySettings, Job, content_weight_at, first_evaluation

LONG_SIDE = 128
"""Pixels that a small run's picture has at most, for whoever sets it up."""

ITERATIONS = 200
"""At most; as many as the picture gets where these are fewer: from noise, the content comes with the iterations."""

KEPT = (0.1, 0.9)
"""From the first to the last suggested weight this much of the content image is kept."""

FLAT = 0.01
"""Where ten times the weight keeps no more than this of the content image in addition, more weight does not help."""

MOST_RUNS = 14

LIMITS = (1e-30, 1e30)
"""Content weights beyond these come of other weights that are absurd, and leave the range of float32."""


@dataclass(frozen=True)
class Pilot:
    """A small run.

    Parameters
    ----------
    content_weight : for the picture's own size.
    kept : of the content image: 1 minus the content loss in units of what it is where the style alone decides.
    missed : of the style image: the style loss in units of the content image's own.
    """

    content_weight: float
    kept: float
    missed: float


def pilot_settings(settings: AnySettings) -> AnySettings:
    """Return the settings of small runs for a picture with these: L-BFGS as it is, and ``ITERATIONS`` at most."""
    return replace(
        settings,
        iterations=min(settings.iterations, ITERATIONS),
        optimizer="l-bfgs",
        learning_rate=None,
        history=None,
    )


def suggest_content_weights(
    prepare_pilot: Callable[[float], Job],
    content: Array,
    area: float = 1.0,
    count: int = 4,
    follow: Callable[[Pilot], None] | None = None,
) -> list[float]:
    """Return content weights from where the style image rules to where the content image does, in even ratios.

    With arrays of a small size::

        small = pilot_settings(Settings())
        suggest_content_weights(
            lambda weight: prepare(network, content, style, replace(small, content_weight=weight)), content, area
        )

    Parameters
    ----------
    prepare_pilot : from a content weight, at the small size, makes a small run.
    content : the content image of the small runs, (H, W, 3), 0..255.
    area : how many times as many pixels the picture has that the weights are for.
    count : how many weights; at least 2.
    follow : called after each small run.

    Raises ValueError for settings or images that do not fit, and when the weight makes no difference; KeyboardInterrupt
    when a small run is interrupted: its result would mean nothing.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    job = prepare_pilot(0.0)
    first_evaluation(job)
    _, style_of_content = _losses(job, content)
    content_of_texture, _ = _losses(job, _made(job))
    if not content_of_texture or not style_of_content:
        raise ValueError("the content weight makes no difference: the content image fits the style already")

    def pilot(content_weight: float) -> Pilot:
        job = prepare_pilot(content_weight_at(content_weight, 1.0, area))
        content_loss, style_loss = _losses(job, _made(job))
        found = Pilot(content_weight, 1 - content_loss / content_of_texture, style_loss / style_of_content)
        if follow is not None:
            follow(found)
        return found

    # Where content image and texture cost the same; a little content less buys much style, so the middle lies below.
    balance = job.settings.style_weight * style_of_content / (content_of_texture * area)
    if not LIMITS[0] <= balance <= LIMITS[1]:
        raise ValueError(
            f"content and style balance at a content weight of {balance:.0e} only, expected {LIMITS[0]:g} to "
            f"{LIMITS[1]:g}: give the style, or the layers, weights nearer to 1"
        )
    pilots = [pilot(balance / 10)]
    while pilots[0].kept > KEPT[0] and len(pilots) < MOST_RUNS:
        pilots.insert(0, pilot(pilots[0].content_weight / 10))
    while pilots[-1].kept < KEPT[1] and len(pilots) < MOST_RUNS and not _flat(pilots):
        pilots.append(pilot(pilots[-1].content_weight * 10))
    low, high = (crossing(pilots, kept) for kept in KEPT)
    return spread(low, high, count)


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
    """Return ``count`` numbers, 2 or more, from about ``low`` to about ``high`` in even ratios, each of one digit."""
    ratio = (high / low) ** (1 / (count - 1))
    numbers = [float(f"{low * ratio**index:.0e}") for index in range(count)]
    if len(set(numbers)) < count:  # too near to each other for one digit
        numbers = [float(f"{low * ratio**index:.2e}") for index in range(count)]
    return numbers


def _flat(pilots: Sequence[Pilot]) -> bool:
    """Say whether the last tenfold of the weight brought nothing, as where the iterations are too few for more."""
    if len(pilots) < 2 or pilots[-1].kept <= KEPT[0]:
        return False
    return pilots[-1].kept - pilots[-2].kept < FLAT


def _made(job: Job) -> Array:
    result = job.run()
    if result.stop == "interrupted":
        raise KeyboardInterrupt
    return result.image


def _losses(job: Job, image: Array) -> tuple[float, float]:
    """Return the content and the style loss at an image, without alpha and beta."""
    objective = job.objective
    objective(image)
    terms = objective.terms
    content, style = (
        sum(term.weight * terms[kind][term.name] for term in objective.summands if term.kind == kind)
        for kind in ("content", "style")
    )
    return float(content), float(style)
