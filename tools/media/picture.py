"""A picture in memory: sRGB pixels from 0 to 255 and, where it is not fully opaque, an alpha channel beside them.

The pixels are never multiplied by alpha.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.transparency import OPAQUE, fill_hidden

# Half of the smallest alpha that an 8-bit file can hold: below it a pixel is written as fully transparent.
_INVISIBLE = 0.5 / 255

# Lanczos sees so many pixels to each side, of the larger of the two sizes.
_FILTER_RADIUS = 3


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes
    ----------
    pixels : float32, shape (H, W, 3), sRGB-encoded red, green and blue from 0 to 255, not multiplied by alpha.
    alpha : float32, shape (H, W), from 0 (transparent) to 1 (opaque), or None for a fully opaque picture.
    note : a sentence for the user on how the file was read, or nothing.
    """

    pixels: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32] | None
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width, _ = self.pixels.shape
        return height, width

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """The pixels, with alpha as a fourth channel from 0 to 255 unless opaque: as the engine takes a style image."""
        if self.alpha is None:
            return self.pixels
        return np.concatenate([self.pixels, np.float32(OPAQUE) * self.alpha[..., None]], axis=-1)


def as_painting(picture: Picture, path: str | os.PathLike[str]) -> Picture:
    """Return a picture in which what nobody sees has a color of what is seen.

    Two pictures that differ under an alpha of 0 only give the same. Raises ValueError, with the name of the file, for
    a fully transparent picture.
    """
    if picture.alpha is None:
        return picture
    if not picture.alpha.any():
        raise ValueError(f"cannot take the style of {str(path)!r}: it is wholly transparent")
    return replace(picture, pixels=fill_hidden(picture.pixels, picture.alpha))


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Return the picture at exactly ``height`` x ``width`` pixels, or the same one if it has that size.

    Lanczos resampling of the sRGB values in floating point, clipped to 0 to 255. Pixels weigh in with their alpha, so
    that the color of transparent pixels does not bleed into visible ones.
    """
    if height < 1 or width < 1:
        raise ValueError(f"cannot resize to {height} x {width} pixels, expected at least 1 x 1")
    if picture.pixels.shape[:2] == (height, width):
        return picture
    pixels = _resample_colors(picture.pixels, height, width)
    if picture.alpha is None:
        return replace(picture, pixels=np.clip(pixels, 0, 255))
    alpha = _resample(picture.alpha, height, width)
    weighted = _resample_colors(picture.pixels * picture.alpha[..., None], height, width)
    visible = alpha >= _INVISIBLE
    # Where nothing is visible there is no weight to divide by: the plain colors stay.
    pixels[visible] = weighted[visible] / alpha[visible][:, None]
    return replace(picture, pixels=np.clip(pixels, 0, 255), alpha=np.clip(alpha, 0, 1))


def resize_tile(picture: Picture, height: int, width: int) -> Picture:
    """Return the colors of a picture that can be laid beside itself at another size: as ``resize``, without a seam.

    Beyond each edge the picture's other side goes on, as far as the filter sees.
    """
    if picture.size == (height, width):
        return Picture(picture.pixels, None)
    (old_height, old_width), radius = picture.size, _FILTER_RADIUS
    top, left = math.ceil(radius * max(old_height / height, 1)), math.ceil(radius * max(old_width / width, 1))
    wider = np.pad(picture.pixels, ((top, top), (left, left), (0, 0)), mode="wrap")
    # What is resized is the part within the margins; the filter sees what lies around it.
    pixels = _resample_colors(wider, height, width, (left, top, left + old_width, top + old_height))
    return Picture(np.clip(pixels, 0, 255), None)


_Box = tuple[int, int, int, int]


def _resample_colors(
    pixels: npt.NDArray[np.float32], height: int, width: int, box: _Box | None = None
) -> npt.NDArray[np.float32]:
    return np.stack([_resample(pixels[..., channel], height, width, box) for channel in range(3)], axis=-1)


def _resample(
    plane: npt.NDArray[np.float32], height: int, width: int, box: _Box | None = None
) -> npt.NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box))


def to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return values rounded to the nearest whole number and clipped to 0 to 255."""
    rounded: npt.NDArray[np.float64] = np.clip(np.rint(values), 0, 255)
    return rounded.astype(np.uint8)
