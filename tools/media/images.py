"""Reading, resizing and writing pictures: the only module that knows image files.

Whatever a file holds becomes upright sRGB pixels on a scale of 0 to 255 and, where the picture is not fully opaque,
an alpha channel beside them; the pixels are never multiplied by alpha. Gray pictures of more than 8 bits keep their
precision (with a color profile, to within half a level); color pictures of 16 bits a channel are decoded to 8, which
is what Pillow offers.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from engine.multiscale import fit
from tools.media.files import check_writable, replacing

MAX_PIXELS = 200_000_000
"""The largest picture that is read, in pixels: that of a 200-megapixel camera, 2.4 GB once decoded."""

# Pillow can open more than these, but some of its other readers start programs (EPS) or accept almost any bytes (TGA).
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
_READABLE_NAMES = "PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, JPEG 2000 or AVIF"

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMAT_NAMES = "PNG (.png), JPEG (.jpg, .jpeg), WebP (.webp) or TIFF (.tif, .tiff)"
JPEG_QUALITY = 95
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"subsampling": "4:4:4"},
    # Lossy WebP always halves the resolution of color. ``exact`` keeps the colors of fully transparent pixels.
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}

# Pillow's limit and Python's warning filters belong to the process; a thread that ends early would set back another's.
_ONE_AT_A_TIME = threading.RLock()

# Half of the smallest alpha that an 8-bit file can hold: below it a pixel is written as fully transparent.
_INVISIBLE = 0.5 / 255


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes
    ----------
    pixels : float32, shape (H, W, 3), sRGB-encoded red, green and blue from 0 to 255, not multiplied by alpha.
    alpha : float32, shape (H, W), from 0 (transparent) to 1 (opaque), or None for a fully opaque picture.
    """

    pixels: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32] | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width, _ = self.pixels.shape
        return height, width


def load_image(
    path: str | os.PathLike[str], long_side: int | None = None, size: tuple[int, int] | None = None
) -> Picture:
    """Read an image file, turned upright, converted to sRGB and, if asked, resized.

    An embedded color profile is applied; one that is broken, or that is for another kind of picture, is ignored, as
    is the gamma of a PNG without a profile. Of an animation or a file of several pages the first picture is read. A
    fully transparent picture is kept as it is: its pixels are the colors stored under the transparency. A floating
    point picture must hold values from 0 to 1, an integer one of 32 bits values from 0 to 65535.

    Parameters
    ----------
    path : a PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, JPEG 2000 or AVIF file.
    long_side : resize so that the longer side has exactly this many pixels and the aspect is kept.
    size : resize to exactly (height, width).

    Raises
    ------
    ValueError
        If the file is missing, cannot be read, is no picture, is damaged or truncated, has no pixels or more than
        `MAX_PIXELS`; or if both ``long_side`` and ``size`` are given.
    """
    if long_side is not None and size is not None:
        raise ValueError("long_side and size were both given, expected at most one of them")
    with _opened(Path(path)) as image:
        picture = _decode(image)
    if long_side is not None:
        height, width = picture.pixels.shape[:2]
        size = fit(height, width, long_side)
    return picture if size is None else resize(picture, *size)


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
        return Picture(np.clip(pixels, 0, 255), None)
    alpha = _resample(picture.alpha, height, width)
    weighted = _resample_colors(picture.pixels * picture.alpha[..., None], height, width)
    visible = alpha >= _INVISIBLE
    # Where nothing is visible there is no weight to divide by: the plain colors stay.
    pixels[visible] = weighted[visible] / alpha[visible][:, None]
    return Picture(np.clip(pixels, 0, 255), np.clip(alpha, 0, 1))


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
        raise ValueError(f"cannot write {str(path)!r}: {_sentence(error)}") from None
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless `save_image` can write to ``path``: to be called before a long computation."""
    path = Path(path)
    _format_of(path)
    check_writable(path)


def read_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the metadata that `save_image` wrote, or an empty dict when there is none.

    Raises
    ------
    ValueError
        If the file cannot be read as a picture, as in `load_image`.
    """
    with _opened(Path(path)) as image:
        if isinstance(image, PngImagePlugin.PngImageFile):
            return {name: str(value) for name, value in image.text.items() if isinstance(value, PngImagePlugin.iTXt)}
        return _parse_description(image.getexif().get(ExifTags.Base.ImageDescription))


def open_file(path: Path) -> BinaryIO:
    """Return a picture's file, open for reading.

    Raises ValueError when it is missing, no regular file or cannot be read; whether it is a picture is not looked at.
    """
    problem = f"cannot read {str(path)!r}"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{problem}: it is a directory, give an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{problem}: it is not a regular file, write the picture to one first")
        return path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{problem}: there is no such file") from None
    except OSError as error:
        raise ValueError(f"{problem}: {error.strerror or error}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the image in a file; whatever fails while it is open becomes a ValueError that names the file."""
    problem = f"cannot read {str(path)!r}"
    with _ONE_AT_A_TIME, open_file(path) as file, _pixel_limit():
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{problem}: the file is empty")
        try:
            with Image.open(file, formats=_readable()) as image:
                yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"{problem}: it has more than {MAX_PIXELS:,} pixels, make it smaller first") from None
        except UnidentifiedImageError:
            raise ValueError(f"{problem}: it is not a {_READABLE_NAMES} picture, or is damaged") from None
        except MemoryError:
            raise ValueError(f"{problem}: there is not enough memory to decode it") from None
        except Exception as error:  # Damaged files make Pillow raise nearly anything, from struct.error to TypeError.
            raise ValueError(f"{problem}: damaged or of an unsupported kind ({_sentence(error)})") from None


@contextlib.contextmanager
def _pixel_limit() -> Iterator[None]:
    """Make Pillow refuse pictures of more than MAX_PIXELS, and keep its other warnings from the user."""
    previous = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Up to twice the limit Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = previous


@functools.cache
def _readable() -> tuple[str, ...]:
    """Return the readable formats that this Pillow has: AVIF came with 11.3."""
    Image.init()
    return tuple(name for name in _READABLE if name in Image.OPEN)


def _decode(image: Image.Image) -> Picture:
    image.load()
    tags = getattr(image, "tag_v2", {})
    profile = image.info.get("icc_profile")
    key = image.info.get("transparency")
    image = _upright(image)
    if image.mode in _DEEP_MODES:
        levels = _deep_levels(image, tags)
        alpha = None if key is None else _opaque_unless(image, key)
        pixels = _deep_colors(levels, profile)
    else:
        image, alpha = _split_alpha(image, key)
        pixels = np.array(_to_srgb(image, profile), np.float32)
    if alpha is not None and alpha.min() == 1:
        alpha = None
    return Picture(pixels, alpha)


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image as its EXIF orientation wants it shown; Pillow does so itself for TIFF and AVIF."""
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # As with decoding: damaged EXIF data makes Pillow raise nearly anything, and is no loss.
        method = None
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


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image in mode L, RGB, CMYK or LAB as sRGB in mode RGB, through its ICC profile if that is usable."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            # Many programs give a gray picture the profile of the color space they work in.
            colored = image.convert("RGB") if space == "RGB" and image.mode == "L" else image
            if _PROFILE_MODES.get(space) == colored.mode:
                return ImageCms.ImageCmsTransform(source, _srgb(), colored.mode, "RGB").apply(colored)
        except (OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _deep_levels(image: Image.Image, tags: Mapping[int, Any]) -> npt.NDArray[np.float64]:
    """Return the gray levels, shape (H, W), 0 to 255, of an image of more than 8 bits; ``tags`` are those of a TIFF."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        top = 1
    else:
        top = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):
        raise ValueError(f"its samples go from {low:g} to {high:g}, expected 0 to {top}")
    # Pillow leaves this interpretation, 0 is white, to the reader when there are more than 8 bits.
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        values = top - values
    return values * (255 / top)


def _deep_colors(levels: npt.NDArray[np.float64], profile: bytes | None) -> npt.NDArray[np.float32]:
    """Return sRGB pixels for gray levels 0 to 255; profiles know 8 bits only, so their results are interpolated."""
    if not profile:
        return np.repeat(levels[..., None].astype(np.float32), 3, axis=-1)
    steps = np.arange(256, dtype=np.uint8)
    tones = np.asarray(_to_srgb(Image.fromarray(steps[None]), profile), np.float64)[0]
    channels = [np.interp(levels, steps, tones[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _resample_colors(pixels: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    return np.stack([_resample(pixels[..., channel], height, width) for channel in range(3)], axis=-1)


def _resample(plane: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS))


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
    image = Image.fromarray(_to_bytes(pixels))
    if alpha is not None:
        image.putalpha(Image.fromarray(_to_bytes(alpha * 255)))
    buffer = io.BytesIO()
    options = _OPTIONS[kind] | ({"quality": quality} if kind == "JPEG" else {})
    image.save(buffer, kind, icc_profile=_srgb_file(), **_metadata(kind, text), **options)
    return buffer.getvalue()


def _check_finite(what: str, values: npt.NDArray[Any]) -> None:
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(f"{bad} of its {values.size} {what} values are infinite or not a number")


def _to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    rounded: npt.NDArray[np.float64] = np.clip(np.rint(values), 0, 255)
    return rounded.astype(np.uint8)


@functools.cache
def _srgb_file() -> bytes:
    content = _srgb().tobytes()
    # The header holds the time of creation: with a fixed one, 2000-01-01, the same pictures give the same files.
    date = b"".join(number.to_bytes(2, "big") for number in (2000, 1, 1, 0, 0, 0))
    return content[:24] + date + content[36:]


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


def _parse_description(description: object) -> dict[str, str]:
    """Return the metadata in an image description, or an empty dict for one that another program wrote."""
    try:
        values = json.loads(description) if isinstance(description, str) else None
    except ValueError:
        return {}
    if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
        return values
    return {}


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
