"""Reading, resizing and writing pictures: the only module that knows image files.

Whatever a file holds becomes upright sRGB pixels on a scale of 0 to 255 and, where the picture is not fully opaque,
an alpha channel beside them; the pixels are never multiplied by alpha. Grey pictures of more than 8 bits keep their
precision (with a colour profile, to within half a level); colour pictures of 16 bits a channel are decoded to 8, which
is what Pillow offers. What a picture takes up is known before it is decoded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from engine.multiscale import fit
from engine.transparency import OPAQUE, fill_hidden
from tools import picture_files, tiff
from tools.files import check_writable, replacing
from tools.memory import available_memory
from tools.picture_files import RefusedError
from tools.progress import byte_count

MAX_PIXELS = 200_000_000
"""The largest picture that is looked at, in pixels: that of a 200-megapixel camera."""

MAX_BYTES = 2_000_000_000
"""What decoding a picture may take: 125 megapixels of color. A JPEG that takes more is read at a part of its size."""

MAX_SCANNED = 1_250_000_000
"""Pixels that the passes over a progressive JPEG come to; all of them are made before anything can be seen."""

# Pillow can open more than these, but some of its other readers start programs (EPS) or accept almost any bytes (TGA).
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
_READABLE_NAMES = "PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, JPEG 2000 or AVIF"

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMAT_NAMES = "PNG (.png), JPEG (.jpg, .jpeg), WebP (.webp) or TIFF (.tif, .tiff)"
JPEG_QUALITY = 95
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"subsampling": "4:4:4"},
    # Lossy WebP always halves the resolution of colour. ``exact`` keeps the colours of fully transparent pixels.
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
_TURNS: dict[int, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_JPEG = ("JPEG", "MPO")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}

_PLUGINS = {
    "HEIC": ("pillow-heif", "pillow_heif", "HEIF"),
    "JPEG XL": ("pillow-jxl-plugin", "pillow_jxl", "JXL"),
}
"""By kind: the package, its module, and Pillow's name of the kind."""

# Bytes for each pixel, besides the image itself, that decoders of these kinds hold: measured at 12 megapixels and up.
_DECODERS = {"WEBP": 10, "JPEG2000": 8, "AVIF": 8, "HEIF": 8, "JXL": 8, "TIFF": 4, "GIF": 4, "PPM": 4}
_PROGRESSIVE = 6
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_COLORS, _ALPHA = 12, 4

# Pictures become floating numbers so many pixels at a time, with so many bytes for each.
_STRIP = 1 << 20
_STRIP_BYTES = 24

_HEAD = 256
_MAX_SHOWN = 60
_PLANES = 2

# The primaries of Adobe RGB (1998), from its linear values to those of sRGB; both have D65 for white.
_ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]])
_ADOBE_GAMMA = 563 / 256

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


@dataclass(frozen=True)
class Extent:
    """What a picture takes up, told before it is decoded.

    Parameters
    ----------
    height, width : in pixels, upright.
    decoding : bytes at most while it is read.
    decoded : bytes of the ``Picture``.
    """

    height: int
    width: int
    decoding: int
    decoded: int


def load_image(
    path: str | os.PathLike[str], long_side: int | None = None, size: tuple[int, int] | None = None
) -> Picture:
    """Read an image file, turned upright, converted to sRGB and, if asked, resized.

    An embedded colour profile is applied, and where there is none, Adobe RGB if Exif names that; a profile that is
    broken, or that is for another kind of picture, is ignored, as is the gamma of a PNG without a profile. Of an
    animation or a file of several pages the first picture is read. A fully transparent picture is kept as it is: its
    pixels are the colours stored under the transparency, but for a BMP, whose alpha says nothing where it is 0
    everywhere. A floating point picture must hold values from 0 to 1, an integer one of 32 bits values from 0 to 65535.

    Parameters
    ----------
    path : a PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, JPEG 2000 or AVIF file; HEIC and JPEG XL where their plug-ins are.
    long_side : resize so that the longer side has exactly this many pixels and the aspect is kept.
    size : resize to exactly (height, width).

    Raises
    ------
    ValueError
        If the file is missing, cannot be read, is no picture, is damaged or truncated, has no pixels or more than
        `MAX_PIXELS`, takes more than `MAX_BYTES` or than there are; or if both ``long_side`` and ``size`` are given.
    """
    if long_side is not None and size is not None:
        raise ValueError("long_side and size were both given, expected at most one of them")
    path = Path(path)
    with _opened(path) as source:
        picture = _decoded(source)
    if picture.note:
        picture = replace(picture, note=f"{path}: {picture.note}")
    if long_side is not None:
        height, width = picture.pixels.shape[:2]
        size = fit(height, width, long_side)
    return picture if size is None else resize(picture, *size)


def load_painting(path: str | os.PathLike[str]) -> Picture:
    """Read an image file whose style is to be taken: `load_image` and `as_painting`."""
    return as_painting(load_image(path), path)


def as_painting(picture: Picture, path: str | os.PathLike[str]) -> Picture:
    """Return a picture in which what nobody sees has a colour of what is seen.

    Two pictures that differ under an alpha of 0 only give the same. Raises ValueError, with the name of the file, for
    a fully transparent picture.
    """
    if picture.alpha is None:
        return picture
    if not picture.alpha.any():
        raise ValueError(f"cannot take the style of {str(path)!r}: it is wholly transparent")
    return replace(picture, pixels=fill_hidden(picture.pixels, picture.alpha))


def extent(path: str | os.PathLike[str]) -> Extent:
    """Return what an image file's picture takes up, without decoding it; of a JPEG, the whole at its full size.

    Raises ValueError as `load_image` does, as far as that shows in the file's header.
    """
    with _opened(Path(path)) as source:
        return _extent(source)


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Return the picture at exactly ``height`` x ``width`` pixels, or the same one if it has that size.

    Lanczos resampling of the sRGB values in floating point, clipped to 0 to 255. Pixels weigh in with their alpha, so
    that the colour of transparent pixels does not bleed into visible ones.
    """
    if height < 1 or width < 1:
        raise ValueError(f"cannot resize to {height} x {width} pixels, expected at least 1 x 1")
    if picture.pixels.shape[:2] == (height, width):
        return picture
    pixels = _resample_colours(picture.pixels, height, width)
    if picture.alpha is None:
        return replace(picture, pixels=np.clip(pixels, 0, 255))
    alpha = _resample(picture.alpha, height, width)
    weighted = _resample_colours(picture.pixels * picture.alpha[..., None], height, width)
    visible = alpha >= _INVISIBLE
    # Where nothing is visible there is no weight to divide by: the plain colours stay.
    pixels[visible] = weighted[visible] / alpha[visible][:, None]
    return replace(picture, pixels=np.clip(pixels, 0, 255), alpha=np.clip(alpha, 0, 1))


def save_image(
    path: str | os.PathLike[str],
    pixels: npt.NDArray[Any],
    alpha: npt.NDArray[Any] | None = None,
    text: Mapping[str, str] | None = None,
    quality: int = JPEG_QUALITY,
) -> None:
    """Write an 8-bit sRGB picture with its colour profile; the file appears whole or not at all.

    The suffix decides the format: PNG, WebP and TIFF are lossless; JPEG has full colour resolution.

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
    with _opened(Path(path), with_text=True) as source:
        image = source.image
        if image is None:
            return {}
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
    except OSError as error:
        address = picture_files.address(path)
        if address is not None:
            shown = address if len(address) <= _MAX_SHOWN else f"{address[: _MAX_SHOWN - 3]}..."
            local = address.lower().startswith("file:")
            advice = "give the path alone" if local else "download the picture first, and give the file's name"
            raise ValueError(f"cannot read {shown!r}: it is an address, not a file: {advice}") from None
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise ValueError(f"{problem}: {reason}") from None


@dataclass(frozen=True, eq=False)
class _Source:
    """An open picture file: either Pillow's image, or how a TIFF is laid out that Pillow does not read right."""

    file: BinaryIO
    image: Image.Image | None = None
    layout: tiff.Layout | None = None


@contextlib.contextmanager
def _opened(path: Path, with_text: bool = False) -> Iterator[_Source]:
    """Give the picture in a file; whatever fails while it is open becomes a ValueError that names the file.

    Parameters
    ----------
    with_text : whether a PNG's text is wanted.
    """
    problem = f"cannot read {str(path)!r}"
    with _ONE_AT_A_TIME, open_file(path) as file, _limits():
        head = file.read(_HEAD)
        if not head:
            raise ValueError(f"{problem}: the file is empty")
        try:
            formats = _readable()
            if kind := picture_files.plugin_of(head):
                formats = (_plugged_in(kind),)
            elif found := picture_files.other_kind(head):
                raise RefusedError(f"it is {found[0]}: {found[1]}")
            with contextlib.ExitStack() as stack:
                source = file
                if head.startswith(picture_files.PNG):
                    source = stack.enter_context(picture_files.lean_png(file, with_text))
                elif head.startswith(b"\xff\xd8"):
                    picture_files.is_progressive(file)
                elif head[:1] == b"P" and head[1:2] in b"123456":
                    picture_files.check_ppm(file)
                elif head.startswith(b"BM"):
                    picture_files.check_bmp(head, file)
                source.seek(0)
                if head.startswith(picture_files.TIFF):
                    stack.enter_context(_without_stderr())
                    yield _tiff(stack, source)
                else:
                    yield _Source(source, stack.enter_context(Image.open(source, formats=formats)))
        except RefusedError as error:
            raise ValueError(f"{problem}: {error}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(f"{problem}: it has more than {MAX_PIXELS:,} pixels, make it smaller first") from None
        except UnidentifiedImageError:
            raise ValueError(f"{problem}: it is not a {_READABLE_NAMES} picture, or is damaged") from None
        except MemoryError:
            raise ValueError(f"{problem}: there is not enough memory to decode it") from None
        except Exception as error:  # Damaged files make Pillow raise nearly anything, from struct.error to TypeError.
            raise ValueError(f"{problem}: damaged or of an unsupported kind ({_sentence(error)})") from None


def _tiff(stack: contextlib.ExitStack, file: BinaryIO) -> _Source:
    """Return a TIFF's picture: Pillow's, where that is the one that the file has.

    Planes that lie apart it may read as stripes, and numbers of 32 bits that are compressed in the wrong byte order.
    """
    if tiff.is_raw(file):
        raise RefusedError("it is a camera's raw file: develop it first, and save that as PNG or JPEG")
    file.seek(0)
    try:
        image = stack.enter_context(Image.open(file, formats=("TIFF",)))
    except UnidentifiedImageError:
        return _Source(file, layout=tiff.layout_of(file))
    tags = _tags(image)
    compressed = tags.get(ExifTags.Base.Compression, 1) != 1
    apart = tags.get(ExifTags.Base.PlanarConfiguration) == _PLANES
    swapped = compressed and (image.mode == "F" or (image.mode == "I" and tiff.is_big_endian(file)))
    if apart or swapped:
        try:
            return _Source(file, layout=tiff.layout_of(file))
        except RefusedError:
            if swapped or not compressed:
                raise
    parts = [tile.extents for tile in image.tile if tile.extents is not None]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in parts)
    if covered < image.width * image.height:  # Pillow leaves the rest black
        raise ValueError(f"its strips or tiles have {covered} pixels, itself {image.width * image.height}")
    return _Source(file, image)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep from the user what libtiff prints of damaged files, line upon line, behind Python's back."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        yield
        return
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _plugged_in(kind: str) -> str:
    """Return Pillow's name for a kind of picture, once the plug-in for it is there."""
    package, module, name = _PLUGINS[kind]
    try:
        plugin = importlib.import_module(module)
        if hasattr(plugin, "register_heif_opener"):
            plugin.register_heif_opener()
    except ImportError:
        raise RefusedError(
            f"it is a {kind} picture: install what reads it with pip install {package}, or save it as JPEG or PNG first"
        ) from None
    return name


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Make Pillow refuse pictures of more than MAX_PIXELS, and keep its other warnings from the user."""
    previous = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    # What is larger has been left out: Pillow would refuse the picture for it.
    PngImagePlugin.MAX_TEXT_CHUNK = picture_files.MAX_METADATA
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Up to twice the limit Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = previous


@functools.cache
def _readable() -> tuple[str, ...]:
    """Return the readable formats that this Pillow has: AVIF came with 11.3."""
    Image.init()
    return tuple(name for name in _READABLE if name in Image.OPEN)


def _extent(source: _Source) -> Extent:
    """Return what a picture takes up; raise `RefusedError` for one that is not decoded at any size."""
    if source.layout is not None:
        layout = source.layout
        height, width, decoding = layout.height, layout.width, layout.bytes
        turned, with_alpha = layout.orientation in _ON_ITS_SIDE, bool(layout.alpha)
    else:
        image = source.image
        assert image is not None
        (width, height), orientation = image.size, _orientation(image)
        # Pillow tells a TIFF's size as it will be when it has turned it.
        turned, with_alpha = orientation in _ON_ITS_SIDE and image.format != "TIFF", _may_be_transparent(image)
        stored = _STORED.get(image.mode, 4)
        each = stored * (1 if orientation == 1 else 2) + _DECODERS.get(image.format or "", 0)
        if _is_progressive_jpeg(source):
            if picture_files.jpeg_scans(source.file) * height * width > MAX_SCANNED:
                raise RefusedError("it is a progressive JPEG of too many passes: save it as PNG or plain JPEG first")
            each += _PROGRESSIVE
        decoding = height * width * (each + _COLORS + _ALPHA * with_alpha)
    if height * width > MAX_PIXELS:
        raise Image.DecompressionBombError
    decoding += min(height * width, _STRIP) * _STRIP_BYTES
    decoded = height * width * (_COLORS + _ALPHA * with_alpha)
    if turned:
        height, width = width, height
    return Extent(height, width, decoding, decoded)


def _decoded(source: _Source) -> Picture:
    """Return a picture if there is room for it; a JPEG for which there is none, at a part of its size."""
    found = _extent(source)
    free = available_memory()
    room = MAX_BYTES if free is None else min(MAX_BYTES, free)
    image, part = source.image, 1
    if image is not None and image.format in _JPEG:
        # The decoder itself can make a picture smaller, by these numbers.
        part = next((part for part in (1, 2, 4, 8) if _at_part(source, found, part) <= room), 1)
    if _at_part(source, found, part) > room:
        raise RefusedError(
            f"its {found.width}x{found.height} pixels would take {byte_count(found.decoding)} of memory, "
            f"{byte_count(room)} are {'allowed' if room == MAX_BYTES else 'available'}: make it smaller first"
        )
    if image is None:
        return _from_tiff(source)
    if part > 1:
        image.draft(image.mode, (image.width // part, image.height // part))
        read = f"its {found.width}x{found.height} pixels are read at 1/{part} of the size, for they would take "
        return replace(_decode(image), note=f"{read}{byte_count(found.decoding)} of memory")
    return _decode(image)


def _at_part(source: _Source, found: Extent, part: int) -> int:
    """Return the bytes that decoding takes at a part of the size; a progressive JPEG's coefficients are all there."""
    if part == 1:
        return found.decoding
    coefficients = _PROGRESSIVE * found.height * found.width if _is_progressive_jpeg(source) else 0
    return coefficients + (found.decoding - coefficients) // part**2


def _decode(image: Image.Image) -> Picture:
    image.load()
    tags = _tags(image)
    profile = image.info.get("icc_profile")
    key = image.info.get("transparency")
    adobe = not profile and image.mode == "RGB" and _is_adobe_rgb(image)
    note = ""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image, note = image.convert("RGB"), "its alpha is 0 everywhere, it is taken for opaque"
    image = _upright(image)
    width, height = image.size
    pixels = np.empty((height, width, 3), np.float32)
    alpha: npt.NDArray[np.float32] | None = None
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        part = image if rows >= height else image.crop((0, strip.start, width, strip.stop))
        if part.mode in _DEEP_MODES:
            part_alpha = None if key is None else _opaque_unless(part, key)
            pixels[strip] = _deep_colours(_deep_levels(part, tags), profile)
        else:
            part, part_alpha = _split_alpha(part, key)
            pixels[strip] = _from_adobe_rgb(np.asarray(part)) if adobe else np.asarray(_to_srgb(part, profile))
        if part_alpha is not None and part_alpha.min() < 1:
            alpha = np.ones((height, width), np.float32) if alpha is None else alpha
            alpha[strip] = part_alpha
    return Picture(pixels, alpha, note)


def _from_tiff(source: _Source) -> Picture:
    """Return the picture of a TIFF that Pillow does not read right."""
    layout = source.layout
    assert layout is not None
    levels = tiff.decode(source.file, layout)
    pixels = np.empty((layout.height, layout.width, 3), np.float32)
    rows = max(1, _STRIP // layout.width)
    for top in range(0, layout.height, rows):
        part = levels.colors[top : top + rows]
        if levels.space == "L":
            pixels[top : top + rows] = _deep_colours(part[..., 0].astype(np.float64), layout.profile)
        elif levels.space == "RGB" and not layout.profile:
            pixels[top : top + rows] = part
        else:
            channels = [Image.fromarray(_to_bytes(part[..., channel])) for channel in range(part.shape[-1])]
            pixels[top : top + rows] = np.asarray(_to_srgb(Image.merge(levels.space, channels), layout.profile))
    alpha = None if levels.alpha is None or levels.alpha.min() == 1 else levels.alpha
    turn = _TURNS.get(layout.orientation, np.asarray)
    return Picture(np.ascontiguousarray(turn(pixels)), None if alpha is None else np.ascontiguousarray(turn(alpha)))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF, of other files none."""
    return getattr(image, "tag_v2", {})


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _is_progressive_jpeg(source: _Source) -> bool:
    assert source.image is not None
    return source.image.format in _JPEG and picture_files.is_progressive(source.file)


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Say whether a picture is Adobe RGB by its Exif data alone, as cameras have it: DCF 2.0, and an older way."""
    try:
        exif = Image.Image.getexif(image)
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex.value)
    except Exception:  # As with the orientation.
        return False
    return space == 2 or (space != 1 and isinstance(index, str) and index.strip("\0 ") == "R03")


def _from_adobe_rgb(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the sRGB pixels of Adobe RGB ones, (H, W, 3), 0..255; colors that sRGB does not have are cut off."""
    linear = np.clip((values / 255.0) ** _ADOBE_GAMMA @ _ADOBE_TO_SRGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels: npt.NDArray[np.float32] = (255 * encoded).astype(np.float32)
    return pixels


def _orientation(image: Image.Image) -> int:
    """Return how a picture is yet to be turned, as Exif counts it; Pillow does so itself for TIFF and AVIF."""
    try:
        # Not the method of Pillow's PNGs: that decodes the picture to look for what may stand behind it.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # As with decoding: damaged EXIF data makes Pillow raise nearly anything, and is no loss.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image as it is to be shown."""
    method = _UPRIGHT.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _split_alpha(
    image: Image.Image, key: int | tuple[int, ...] | bytes | None
) -> tuple[Image.Image, npt.NDArray[np.float32] | None]:
    """Return an 8-bit image in mode L, RGB, CMYK or LAB, and its alpha; ``key`` is the colour that is transparent."""
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
    """Return alpha 0 where an image has the colour ``key`` and 1 elsewhere."""
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
            # Many programs give a grey picture the profile of the colour space they work in.
            coloured = image.convert("RGB") if space == "RGB" and image.mode == "L" else image
            if _PROFILE_MODES.get(space) == coloured.mode:
                return ImageCms.ImageCmsTransform(source, _srgb(), coloured.mode, "RGB").apply(coloured)
        except (OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _deep_levels(image: Image.Image, tags: Mapping[int, Any]) -> npt.NDArray[np.float64]:
    """Return the grey levels, shape (H, W), 0 to 255, of an image of more than 8 bits; ``tags`` are those of a TIFF."""
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


def _deep_colours(levels: npt.NDArray[np.float64], profile: bytes | None) -> npt.NDArray[np.float32]:
    """Return sRGB pixels for grey levels 0 to 255; profiles know 8 bits only, so their results are interpolated."""
    if not profile:
        return np.repeat(levels[..., None].astype(np.float32), 3, axis=-1)
    steps = np.arange(256, dtype=np.uint8)
    tones = np.asarray(_to_srgb(Image.fromarray(steps[None]), profile), np.float64)[0]
    channels = [np.interp(levels, steps, tones[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _resample_colours(pixels: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
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
