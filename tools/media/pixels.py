"""From what a decoder gives to a picture: upright, in sRGB, on a scale of 0 to 255, with its alpha.

Gray pictures of more than 8 bits keep their precision (with a color profile, to within half a level); color pictures of
16 bits a channel are decoded to 8, which is what Pillow offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from tools.media import tiff
from tools.media.color_spaces import from_adobe_rgb, is_adobe_rgb, to_srgb
from tools.media.picture import Picture, to_bytes
from tools.media.picture_files import RefusedError

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNS: dict[int, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}

ON_ITS_SIDE = (5, 6, 7, 8)

_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

STRIP = 1 << 20
"""Pixels that become floating numbers at a time."""


def decode(image: Image.Image) -> Picture:
    """Return the picture of a file that Pillow has opened; damaged files may raise anything."""
    image.load()
    tags = tags_of(image)
    profile = image.info.get("icc_profile")
    key = image.info.get("transparency")
    adobe = not profile and image.mode == "RGB" and is_adobe_rgb(image)
    note = ""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image, note = image.convert("RGB"), "its alpha is 0 everywhere, it is taken for opaque"
    image = _upright(image)
    width, height = image.size
    pixels = np.empty((height, width, 3), np.float32)
    alpha: npt.NDArray[np.float32] | None = None
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        part = image if rows >= height else image.crop((0, strip.start, width, strip.stop))
        if part.mode in _DEEP_MODES:
            part_alpha = None if key is None else _opaque_unless(part, key)
            pixels[strip] = _deep_colors(_deep_levels(part, tags), profile)
        else:
            part, part_alpha = _split_alpha(part, key)
            pixels[strip] = from_adobe_rgb(np.asarray(part)) if adobe else np.asarray(to_srgb(part, profile))
        if part_alpha is not None and part_alpha.min() < 1:
            alpha = np.ones((height, width), np.float32) if alpha is None else alpha
            alpha[strip] = part_alpha
    return Picture(pixels, alpha, note)


def of_tiff(file: BinaryIO, layout: tiff.Layout) -> Picture:
    """Return the picture of a TIFF that Pillow does not read right."""
    levels = tiff.decode(file, layout)
    pixels = np.empty((layout.height, layout.width, 3), np.float32)
    rows = max(1, STRIP // layout.width)
    for top in range(0, layout.height, rows):
        part = levels.colors[top : top + rows]
        if levels.space == "L":
            pixels[top : top + rows] = _deep_colors(part[..., 0].astype(np.float64), layout.profile)
        elif levels.space == "RGB" and not layout.profile:
            pixels[top : top + rows] = part
        else:
            channels = [Image.fromarray(to_bytes(part[..., channel])) for channel in range(part.shape[-1])]
            pixels[top : top + rows] = np.asarray(to_srgb(Image.merge(levels.space, channels), layout.profile))
    alpha = None if levels.alpha is None or levels.alpha.min() == 1 else levels.alpha
    turn = _TURNS.get(layout.orientation, np.asarray)
    return Picture(np.ascontiguousarray(turn(pixels)), None if alpha is None else np.ascontiguousarray(turn(alpha)))


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF, of other files none."""
    return getattr(image, "tag_v2", {})


def orientation_of(image: Image.Image) -> int:
    """Return how a picture is yet to be turned, as Exif counts it; Pillow does so itself for TIFF and AVIF."""
    try:
        # Not the method of Pillow's PNGs: that decodes the picture to look for what may stand behind it.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # As with decoding: damaged EXIF data makes Pillow raise nearly anything, and is no loss.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image as it is to be shown."""
    method = _UPRIGHT.get(orientation_of(image))
    return image if method is None else image.transpose(method)


def _split_alpha(
    image: Image.Image, key: int | tuple[int, ...] | bytes | None
) -> tuple[Image.Image, npt.NDArray[np.float32] | None]:
    """Return an 8-bit image in mode L, RGB, CMYK or LAB, and its alpha; ``key`` is the color that is transparent."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        key = None
    elif image.mode == "1":
        image = image.convert("L")
        key = None if key is None else 255 * bool(key)
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        image = image.convert("RGB")
    if image.mode in ("LA", "RGBA"):
        alpha = np.array(image.getchannel("A"), np.float32) / np.float32(255)
        return image.convert(image.mode[:-1]), alpha
    return image, None if key is None else _opaque_unless(image, key)


def _opaque_unless(image: Image.Image, key: int | tuple[int, ...] | bytes) -> npt.NDArray[np.float32]:
    """Return alpha 0 where an image has the color ``key`` and 1 elsewhere."""
    values = np.asarray(image)
    different = np.not_equal(values, key).reshape(*values.shape[:2], -1)
    alpha: npt.NDArray[np.float32] = different.any(axis=-1).astype(np.float32)
    return alpha


def _deep_levels(image: Image.Image, tags: Mapping[int, Any]) -> npt.NDArray[np.float64]:
    """Return the gray levels, shape (H, W), 0 to 255, of an image of more than 8 bits; ``tags`` are those of a TIFF."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        top = 1
    else:
        top = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):
        raise RefusedError(f"its samples go from {low:g} to {high:g}, expected 0 to {top}")
    # Pillow leaves this interpretation, 0 is white, to the reader when there are more than 8 bits.
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        values = top - values
    return values * (255 / top)


def _deep_colors(levels: npt.NDArray[np.float64], profile: bytes | None) -> npt.NDArray[np.float32]:
    """Return sRGB pixels for gray levels 0 to 255; profiles know 8 bits only, so their results are interpolated."""
    if not profile:
        return np.repeat(levels[..., None].astype(np.float32), 3, axis=-1)
    steps = np.arange(256, dtype=np.uint8)
    tones = np.asarray(to_srgb(Image.fromarray(steps[None]), profile), np.float64)[0]
    channels = [np.interp(levels, steps, tones[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
