"""Reading pictures: whatever a file holds becomes a ``Picture``.

What it takes up is known before it is decoded. A picture that cannot be read gives one sentence that names the file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from engine.multiscale import fit
from tools.media import picture_files, pixels, tiff
from tools.media.files import byte_count
from tools.media.memory import available_memory
from tools.media.picture import Picture, as_painting, resize
from tools.media.picture_files import RefusedError, sentence

MAX_PIXELS = 200_000_000
"""The largest picture that is looked at, in pixels: that of a 200-megapixel camera."""

MAX_BYTES = 2_000_000_000
"""What decoding a picture may take: 125 megapixels of color. A JPEG that takes more is read at a part of its size."""

MAX_SCANNED = 1_250_000_000
"""Pixels that the passes over a progressive JPEG come to; all of them are made before anything can be seen."""

# Pillow can open more than these, but some of its other readers start programs (EPS) or accept almost any bytes (TGA).
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")

_READABLE_NAMES = "PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, JPEG 2000 or AVIF"

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm", ".jp2", ".j2k", ".avif"),
    *(".heic", ".heif", ".jxl"),
)
"""What counts as a picture in a folder."""

_JPEG = ("JPEG", "MPO")

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


# For each pixel of those that become floating numbers at a time.
_STRIP_BYTES = 24

_HEAD = 256

_MAX_SHOWN = 60

_PLANES = 2

# Pillow's limit and Python's warning filters belong to the process; a thread that ends early would set back another's.
_ONE_AT_A_TIME = threading.RLock()


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

    An embedded color profile is applied, and where there is none, Adobe RGB if Exif names that; a profile that is
    broken, or that is for another kind of picture, is ignored, as is the gamma of a PNG without a profile. Of an
    animation or a file of several pages the first picture is read. A fully transparent picture is kept as it is: its
    pixels are the colors stored under the transparency, but for a BMP, whose alpha says nothing where it is 0
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


def extent(path: str | os.PathLike[str]) -> Extent:
    """Return what an image file's picture takes up, without decoding it; of a JPEG, the whole at its full size.

    Raises ValueError as `load_image` does, as far as that shows in the file's header.
    """
    with _opened(Path(path)) as source:
        return _extent(source)


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


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder by name; raise ValueError where there is none."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{str(folder)!r} has no pictures ({', '.join(SUFFIXES)})")
    return found


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
            raise ValueError(f"{problem}: damaged or of an unsupported kind ({sentence(error)})") from None


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
    tags = pixels.tags_of(image)
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
        turned, with_alpha = layout.orientation in pixels.ON_ITS_SIDE, bool(layout.alpha)
    else:
        image = source.image
        assert image is not None
        (width, height), orientation = image.size, pixels.orientation_of(image)
        # Pillow tells a TIFF's size as it will be when it has turned it.
        turned, with_alpha = orientation in pixels.ON_ITS_SIDE and image.format != "TIFF", _may_be_transparent(image)
        stored = _STORED.get(image.mode, 4)
        each = stored * (1 if orientation == 1 else 2) + _DECODERS.get(image.format or "", 0)
        if _is_progressive_jpeg(source):
            if picture_files.jpeg_scans(source.file) * height * width > MAX_SCANNED:
                raise RefusedError("it is a progressive JPEG of too many passes: save it as PNG or plain JPEG first")
            each += _PROGRESSIVE
        decoding = height * width * (each + _COLORS + _ALPHA * with_alpha)
    if height * width > MAX_PIXELS:
        raise Image.DecompressionBombError
    decoding += min(height * width, pixels.STRIP) * _STRIP_BYTES
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
        assert source.layout is not None
        return pixels.of_tiff(source.file, source.layout)
    if part > 1:
        image.draft(image.mode, (image.width // part, image.height // part))
        read = f"its {found.width}x{found.height} pixels are read at 1/{part} of the size, for they would take "
        return replace(pixels.decode(image), note=f"{read}{byte_count(found.decoding)} of memory")
    return pixels.decode(image)


def _at_part(source: _Source, found: Extent, part: int) -> int:
    """Return the bytes that decoding takes at a part of the size; a progressive JPEG's coefficients are all there."""
    if part == 1:
        return found.decoding
    coefficients = _PROGRESSIVE * found.height * found.width if _is_progressive_jpeg(source) else 0
    return coefficients + (found.decoding - coefficients) // part**2


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _is_progressive_jpeg(source: _Source) -> bool:
    assert source.image is not None
    return source.image.format in _JPEG and picture_files.is_progressive(source.file)


def _parse_description(description: object) -> dict[str, str]:
    """Return the metadata in an image description, or an empty dict for one that another program wrote."""
    try:
        values = json.loads(description) if isinstance(description, str) else None
    except ValueError:
        return {}
    if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
        return values
    return {}
