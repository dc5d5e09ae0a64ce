"""A picture made from small to large: first a small one, then one twice as large begun with it, and so on.

A layer sees the same number of pixels at any size: a small picture gets the large shapes, a larger one adds the fine
strokes. Source: Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling Perceptual Factors in Neural Style
Transfer" (2017), "coarse-to-fine". The engine knows no way to resize an image: the caller hands one in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.network import Network
from engine.ops import Array
from engine.optimize import Iteration, Result
from engine.stylize import Job, Settings, content_weight_at, content_weight_of, first_style_image, prepare
from engine.targets import Styles

USUAL_LEVELS = 3
SMALLEST_LEVEL = 96
"""How many sizes a picture has, and how large the first is at least, where nothing else is asked for."""

Resize = Callable[[Array, int, int], Array]
"""Takes an image (H, W, 3), or (H, W, 4) with alpha, 0..255, a height and a width; returns it at that size."""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Level:
    """One of the sizes of a picture.

    Parameters
    ----------
    number : from 1, the smallest, to ``count``, the picture itself.
    count : of the picture's sizes.
    size : long side in pixels.
    content_weight : at this size, see ``content_weight_at``.
    """

    number: int
    count: int
    size: int
    content_weight: float

    @property
    def is_last(self) -> bool:
        """Whether this is the picture itself."""
        return self.number == self.count

    def divided(self, side: int) -> int:
        """Return at this size what is ``side`` pixels long at the picture's own, rounded down."""
        return side >> (self.count - self.number)


def usual_levels(size: int) -> int:
    """Return how many sizes suit a picture: as many as begin with ``SMALLEST_LEVEL`` or more, ``USUAL_LEVELS`` at most.

    Parameters
    ----------
    size : long side of the picture in pixels.
    """
    levels = 1
    while levels < USUAL_LEVELS and size >> levels >= SMALLEST_LEVEL:
        levels += 1
    return levels


def levels_of_picture(size: int, count: int, content_weight: float) -> list[Level]:
    """Return a picture's sizes, from the smallest to its own: each has twice the side of the one before.

    Parameters
    ----------
    size : long side of the picture in pixels.
    count : how many sizes, at least 1.
    content_weight : at the picture's own size.

    Raises ValueError where nothing would be left of the smallest.
    """
    if count < 1 or not size >> (count - 1):
        raise ValueError(f"{count} levels of a picture of {size} pixels, expected at least 1, and 1 pixel in each")
    sides = [size >> shift for shift in reversed(range(count))]
    return [
        Level(number, count, side, content_weight_at(content_weight, 1.0, (size / side) ** 2))
        for number, side in enumerate(sides, 1)
    ]


def coarse_to_fine(
    levels: Sequence[Level], prepare_level: Callable[[Level, NDArray[np.float32] | None], Prepared]
) -> Generator[tuple[Level, Prepared], Result, None]:
    """Yield each level with what has been prepared for it; what came of it is sent back, and the next begins with that.

    The caller runs them, and so decides what is shown and whether to stop::

        pictures = coarse_to_fine(levels, prepare_level)
        level, job = next(pictures)
        while not level.is_last:
            level, job = pictures.send(job.run())
        result = job.run()

    Parameters
    ----------
    levels : from ``levels_of_picture``.
    prepare_level : from a level and the image that the one before came to, (H, W, 3) at that one's size, None at the
        first, makes what is to be run.
    """
    image: NDArray[np.float32] | None = None
    for level in levels:
        result = yield level, prepare_level(level, image)
        image = result.image.astype(np.float32)


def stylize_coarse_to_fine(
    network: Network,
    content: Array,
    style: Styles,
    settings: Settings | None = None,
    *,
    resize: Resize,
    size: int | None = None,
    style_size: int | None = None,
    levels: int | None = None,
    callback: Callable[[Iteration], bool | None] | None = None,
) -> Result:
    """Render a content image in the style of another from small to large; return what the last level run came to.

    Parameters
    ----------
    network, content, style, settings : as ``engine.stylize.stylize`` takes them. Init "style" begins with the first
        style image, resized; iterations are those of each size, the content weight is that of the last.
    resize : makes an image larger or smaller; a style image with alpha, (H, W, 4), is given to it as it is.
    size : long side of the picture in pixels; None leaves it the content image's.
    style_size : long side of the style images in pixels, at the last level; None makes it the picture's.
    levels : how many sizes; None means ``usual_levels``.
    callback : called after each iteration of each level, and may stop that level; Ctrl-C ends the whole.

    Raises ValueError for settings or images that do not fit, and for a level that is too small for the network.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> random = np.random.default_rng(0)
    >>> content, style = random.uniform(0, 255, (32, 40, 3)), random.uniform(0, 255, (24, 24, 3))
    >>> def nearest(image, height, width):
    ...     rows, columns = np.arange(height) * image.shape[0] // height, np.arange(width) * image.shape[1] // width
    ...     return image[rows][:, columns]
    >>> settings = Settings(iterations=2)
    >>> stylize_coarse_to_fine(network, content, style, settings, resize=nearest, size=64, levels=2).image.shape
    (51, 64, 3)
    """
    settings = settings or Settings()
    size = max(content.shape[:2]) if size is None else size

    def resized(image: Array, long_side: int) -> Array:
        return resize(image, *fit(image.shape[0], image.shape[1], long_side))

    def resized_style(style: Styles, side: int) -> Any:
        if isinstance(style, np.ndarray):
            return resized(style, side)
        if isinstance(style, Mapping):
            made = {id(one): resized_style(one, side) for one in style.values()}  # once for all its layers
            return {layer: made[id(one)] for layer, one in style.items()}
        return [(resized(image, side), share) for image, share in style]

    def prepare_level(level: Level, image: Array | None) -> Job:
        small = resized(content, level.size)
        style_side = level.size if style_size is None else level.divided(style_size)
        style_images = resized_style(style, style_side)
        if image is None and settings.init == "style":
            image = first_style_image(style)
        initial = None if image is None else resize(image, *small.shape[:2])
        return prepare(network, small, style_images, replace(settings, content_weight=level.content_weight), initial)

    count = usual_levels(size) if levels is None else levels
    pictures = coarse_to_fine(levels_of_picture(size, count, content_weight_of(settings, network, size)), prepare_level)
    level, job = next(pictures)
    while (result := job.run(callback)).stop != "interrupted" and not level.is_last:
        level, job = pictures.send(result)
    return result


def fit(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return the (height, width) of an image whose longer side becomes exactly ``long_side`` pixels.

    The aspect is kept: the other side is rounded to the nearest whole number, half a pixel up, and is at least 1.
    Raises ValueError for sides below 1.
    """
    if height < 1 or width < 1 or long_side < 1:
        raise ValueError(f"cannot fit {height} x {width} pixels to a longer side of {long_side}, expected at least 1")
    longer = max(height, width)

    def scaled(side: int) -> int:
        return max(1, (2 * side * long_side + longer) // (2 * longer))

    return scaled(height), scaled(width)
