"""Writing pictures: 8-bit sRGB with its profile, and what the picture tells of itself."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin

from tools.media.color_spaces import srgb_file
from tools.media.files import check_writable, replacing
from tools.media.picture import to_bytes
from tools.media.picture_files import sentence

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}

_FORMAT_NAMES = "PNG (.png), JPEG (.jpg, .jpeg), WebP (.webp) or TIFF (.tif, .tiff)"

JPEG_QUALITY = 95

_LONGEST = {"WEBP": 16_383, "JPEG": 65_500}
"""Pixels of a side at most, of the formats that have a limit."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"subsampling": "4:4:4"},
    # Lossy WebP always halves the resolution of color. ``exact`` keeps the colors of fully transparent pixels.
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}


def save_image(
    path: str | os.PathLike[str],
    pixels: npt.NDArray[Any],
    alpha: npt.NDArray[Any] | None = None,
    text: Mapping[str, str] | None = None,
    quality: int = JPEG_QUALITY,
) -> None:
    """Write an 8-bit sRGB picture with its color profile; the file appears whole or not at all.

    The suffix decides the format: PNG, WebP and TIFF are lossless; JPEG has full color resolution.

    Parameters
    ----------
    path : a file name ending in .png, .jpg, .jpeg, .webp, .tif or .tiff, in upper or lower case.
    pixels : uint8 or floating, shape (H, W, 3), sRGB; rounded to the nearest whole number and clipped to 0 to 255.
    alpha : floating, shape (H, W), clipped to 0 to 1, or None for opaque; in a JPEG the picture is laid on white.
    text : metadata that `read_text` gives back. The names are ASCII. It is written as international text (iTXt) in
        PNG and as one JSON object in the image description tag of the other formats. What Unicode cannot encode (the
        stray bytes of a file name) is written as an escape.
    quality : of a JPEG, as Pillow counts it: 1 to 95.

    Raises
    ------
    ValueError
        If the suffix is unknown, an array has another shape or type, a value is infinite or not a number, a metadata
        name is not printable ASCII of 1 to 79 characters, the picture or the metadata is too large for the format, or
        the file cannot be written.
    """
    path = Path(path)
    kind = _format_of(path)
    try:
        content = _encode(
            kind, np.asarray(pixels), None if alpha is None else np.asarray(alpha), dict(text or {}), quality
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot write {str(path)!r}: {sentence(error)}") from None
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encoded_image(
    suffix: str, pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None = None, quality: int = JPEG_QUALITY
) -> bytes:
    """Return the contents of the file that `save_image` would write, without text; arguments and errors are its own.

    Parameters
    ----------
    suffix : of the format, as ``".jpg"``.
    """
    return _encode(_format_of(Path(f"picture{suffix}")), pixels, alpha, {}, quality)


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless `save_image` can write to ``path``: to be called before a long computation."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"cannot write {str(path)!r}: it is a folder, give the name of a file such as {str(path / 'picture.png')!r}"
        )
    _format_of(path)
    check_writable(path)


def check_side(path: str | os.PathLike[str], longest: int) -> None:
    """Raise ValueError where the format of ``path`` holds no picture with a side of so many pixels."""
    path = Path(path)
    kind = _format_of(path)
    if longest > _LONGEST.get(kind, longest):
        raise ValueError(
            f"cannot write {str(path)!r}: {kind} holds {_LONGEST[kind]} pixels a side at most, of the picture's "
            f"{longest}: choose a .png or a .tif"
        )


def _format_of(path: Path) -> str:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        found = f"the suffix is {path.suffix!r}" if path.suffix else "there is no suffix"
        raise ValueError(f"cannot write {str(path)!r}: {found}, expected that of {_FORMAT_NAMES}") from None


def _encode(
    kind: str, pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None, text: Mapping[str, str], quality: int
) -> bytes:
    """Return the contents of an image file; ``kind`` is a value of _FORMATS, ``quality`` that of a JPEG."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"the pixels have shape {pixels.shape}, expected (height, width, 3)")
    if pixels.dtype != np.uint8 and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"the pixels are {pixels.dtype}, expected a floating type or uint8")
    _check_finite("pixel", pixels)
    if alpha is not None:
        if alpha.shape != pixels.shape[:2] or not np.issubdtype(alpha.dtype, np.floating):
            raise ValueError(f"alpha is {alpha.dtype} of shape {alpha.shape}, expected floating {pixels.shape[:2]}")
        _check_finite("alpha", alpha)
        alpha = np.clip(alpha, 0, 1)
        if kind == "JPEG":
            pixels = 255 + (np.clip(pixels, 0, 255) - 255.0) * alpha[..., None]
            alpha = None
    image = Image.fromarray(to_bytes(pixels))
    if alpha is not None:
        image.putalpha(Image.fromarray(to_bytes(alpha * 255)))
    buffer = io.BytesIO()
    options = _OPTIONS[kind] | ({"quality": quality} if kind == "JPEG" else {})
    image.save(buffer, kind, icc_profile=srgb_file(), **_metadata(kind, text), **options)
    return buffer.getvalue()


def _check_finite(what: str, values: npt.NDArray[Any]) -> None:
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(f"{bad} of its {values.size} {what} values are infinite or not a number")


def _metadata(kind: str, text: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments that make Pillow write ``text``."""
    if not text:
        return {}
    # PNG's own rule for keywords, less the part of it that is not ASCII.
    for name in text:
        if not (1 <= len(name) <= 79 and name.isascii() and name.isprintable() and name == name.strip()):
            raise ValueError(f"the metadata name {name!r} is not printable ASCII of 1 to 79 characters")
    encodable = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in text.items()}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        for name, value in encodable.items():
            info.add_itxt(name, value)
        return {"pnginfo": info}
    exif = Image.Exif()
    # The tag holds ASCII only, which is what JSON is by default.
    exif[ExifTags.Base.ImageDescription] = json.dumps(encodable)
    return {"exif": exif}
