"""TIFF files as the format defines them: what Pillow does not read, or reads wrongly.

Samples of 8 or 16 bits, and floating ones, side by side or in planes, in strips or tiles, of gray, RGB, CMYK and
Lab pictures, with or without alpha. Pillow is asked only to unpack what is compressed.

Source: TIFF 6.0 (Adobe 1992), with its sections on CIE L*a*b* and the horizontal predictor; Technical Note 3 (2005) on
the floating point predictor.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from tools.media.picture_files import RefusedError

_NUMBERS = {
    (1, 8): "u1",
    (1, 16): "u2",
    (3, 16): "f2",
    (3, 32): "f4",
    (3, 64): "f8",
}

_SPACES = {0: "L", 1: "L", 2: "RGB", 5: "CMYK", 8: "LAB", 9: "LAB"}
_NAMES = {"L": "gray", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}

# Compressions that Pillow unpacks as they are: LZW, PackBits, LZMA, Zstandard.
_UNPACKED_BY_PILLOW = (5, 32773, 34925, 50000)
_DEFLATE = (8, 32946)

_MOST_PARTS = 1 << 20

_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_SINGLE = (254, 256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 330, 34675, 50706)
_LISTS = (258, 273, 279, 324, 325, 338, 339)

_ADVICE = "save it as PNG, or as TIFF with 8 or 16 bits a channel, first"


class _Tags(dict[int, Any]):
    """Those tags of a file's first directory that are looked at, and its byte order, ``"<"`` or ``">"``."""

    order = "<"


def _tags(file: BinaryIO) -> _Tags:
    head = _checked_head(file)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])  # BigTIFF has a longer one
    file.seek(directory.next)
    directory.load(file)
    tags = _Tags({tag: directory[tag] for tag in (*_SINGLE, *_LISTS) if tag in directory})
    tags.order = "<" if head[:1] == b"I" else ">"
    for tag in _LISTS:
        if tag in tags and not isinstance(tags[tag], tuple):
            tags[tag] = (tags[tag],)
    return tags


@dataclass(frozen=True)
class Layout:
    """How a TIFF file holds its first picture.

    Parameters
    ----------
    height, width : in pixels, as stored.
    number : NumPy's code of a sample with its byte order, ``">u2"``.
    samples : for each pixel.
    planes : in how many the samples lie, 1 or ``samples``.
    rows, columns : of a strip or a tile.
    parts : where the strips or tiles begin, and their bytes, plane by plane and downwards.
    compression, predictor, photometric : the tags' values.
    space : ``"L"``, ``"RGB"``, ``"CMYK"`` or ``"LAB"``.
    alpha : what the first further sample is: 1 alpha that the colors were multiplied by, 2 alpha, 0 no alpha.
    orientation, profile : the tags' values; the profile None where there is none.
    """

    height: int
    width: int
    number: str
    samples: int
    planes: int
    rows: int
    columns: int
    parts: tuple[tuple[int, int], ...]
    compression: int
    predictor: int
    photometric: int
    space: str
    alpha: int
    orientation: int
    profile: bytes | None

    @property
    def bytes(self) -> int:
        """What the samples and the picture made of them take at most."""
        size = np.dtype(self.number).itemsize
        return self.height * self.width * (self.samples * size + 12 * len(self.space) + 24)


@dataclass(frozen=True, eq=False)
class Levels:
    """A picture as a TIFF file has it.

    Parameters
    ----------
    space : ``"L"``, ``"RGB"``, ``"CMYK"`` or ``"LAB"``.
    colors : float32, (H, W, channels), 0..255, not multiplied by alpha; of Lab as in an ICC profile, a and b plus 128.
    alpha : float32, (H, W), 0..1, or None.
    """

    space: str
    colors: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32] | None


def layout_of(file: BinaryIO) -> Layout:
    """Return how a TIFF file holds its first picture.

    Raises RefusedError, with what it is, for kinds that are not read here; damaged files may raise anything.
    """
    tags = _tags(file)
    width, height = (int(tags[tag]) for tag in (256, 257))
    if width < 1 or height < 1:
        raise ValueError("it has no pixels")
    samples = int(tags.get(277, 1))
    bits = {int(value) for value in tags.get(258, (1,))}
    formats = {int(value) for value in tags.get(339, (1,))}
    photometric, compression = int(tags.get(262, -1)), int(tags.get(259, 1))
    if photometric == 8 and formats <= {1, 2}:  # a and b have a sign whatever is said of them, the lightness has none
        formats = {1}
    space = _SPACES.get(photometric)
    channels = len(space or "")
    number = _NUMBERS.get((min(formats), min(bits))) if len(bits) == len(formats) == 1 else None
    if not (
        space is not None
        and number is not None
        and channels <= samples <= channels + 8
        and compression in (1, *_DEFLATE, *_UNPACKED_BY_PILLOW)
        and tags.get(266, 1) == 1
    ):
        raise RefusedError(f"it is {_described(tags, space, samples, bits, formats)}: {_ADVICE}")
    planes = samples if tags.get(284, 1) == 2 else 1
    tiled = 322 in tags
    rows = int(tags[323]) if tiled else min(int(tags.get(278, height)), height)
    columns = int(tags[322]) if tiled else width
    places, counts = (tags[tag] for tag in ((324, 325) if tiled else (273, 279)))
    parts = planes * math.ceil(height / rows) * math.ceil(width / columns)
    if parts > _MOST_PARTS or len(places) < parts or len(counts) < parts:
        raise ValueError(f"{len(places)} of its {parts} strips or tiles are there")
    # Tiles may hang over the edge, but not be larger than a picture of any use.
    if tiled and rows * columns > 4 * (height + 4096) * (width + 4096):
        raise ValueError(f"its tiles have {columns}x{rows} pixels, itself {width}x{height}")
    extra = tuple(int(value) for value in tags.get(338, ()))
    profile = tags.get(34675)
    return Layout(
        height,
        width,
        (tags.order + number),
        samples,
        planes,
        rows,
        columns,
        tuple((int(place), int(count)) for place, count in zip(places[:parts], counts[:parts], strict=True)),
        compression,
        int(tags.get(317, 1)),
        photometric,
        space,
        extra[0] if samples > channels and extra and extra[0] in (1, 2) else 0,
        int(tags.get(274, 1)),
        profile if isinstance(profile, bytes) else None,
    )


def _checked_head(file: BinaryIO) -> bytes:
    """Return what a TIFF file begins with; raise ValueError where its directory is more than the file.

    Each entry is read for itself: many that share what they hold would take a day.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order, big = ("<" if head[:1] == b"I" else ">"), 43 in head[2:4]
    place = struct.unpack(f"{order}Q" if big else f"{order}I", head[8:16] if big else head[4:8])[0]
    file.seek(min(place, end))
    counted = file.read(8 if big else 2)
    count = struct.unpack(f"{order}Q" if big else f"{order}H", counted)[0]
    size = 20 if big else 12
    if count > end // size:
        raise ValueError("its directory is longer than the file")
    held = 0
    for entry in struct.iter_unpack(f"{order}HHQQ" if big else f"{order}HHII", file.read(size * count)[: size * count]):
        held += _TYPE_BYTES.get(entry[1], 1) * entry[2]
    if held > 4 * end + (1 << 20):
        raise ValueError("its directory holds more than the file")
    return head


def is_big_endian(file: BinaryIO) -> bool:
    """Say whether a TIFF file has its numbers with the first digits first."""
    file.seek(0)
    return file.read(1) == b"M"


def is_raw(file: BinaryIO) -> bool:
    """Say whether a TIFF file is a camera's raw file, whose first picture is a small one for looking at."""
    tags = _tags(file)
    return 50706 in tags or (330 in tags and tags.get(254) == 1)


def _described(tags: _Tags, space: str | None, samples: int, bits: set[int], formats: set[int]) -> str:
    kind = _NAMES.get(space or "", f"color type {tags.get(262, 'unknown')}")
    sample = {2: "signed ", 3: "floating "}.get(min(formats), "")
    width = " and ".join(map(str, sorted(bits)[:4]))
    return (
        f"a TIFF ({kind}, {samples} {sample}channel{'' if samples == 1 else 's'} of {width} bits, compression "
        f"{tags.get(259, 1)}) of a kind that is not read"
    )


def decode(file: BinaryIO, layout: Layout) -> Levels:
    """Return the picture; damaged files may raise anything."""
    values = np.empty((layout.height, layout.width, layout.samples), np.dtype(layout.number).newbyteorder("="))
    for plane, top, left, part in _parts(file, layout):
        channels = slice(None) if layout.planes == 1 else slice(plane, plane + 1)
        columns = min(layout.columns, layout.width - left)
        values[top : top + len(part), left : left + columns, channels] = part[:, :columns]
    channels_of_color = len(layout.space)
    colors = _scaled(values[..., :channels_of_color], layout)
    if not layout.alpha:
        return Levels(layout.space, colors, None)
    alpha = _fractions(values[..., channels_of_color])
    if layout.alpha == 1:
        visible = alpha > 0
        colors[visible] = np.clip(colors[visible] / alpha[visible][:, None], 0, 255)
    return Levels(layout.space, colors, alpha)


def _parts(file: BinaryIO, layout: Layout) -> Iterator[tuple[int, int, int, npt.NDArray[Any]]]:
    """Yield each strip or tile with its plane and its upper left corner: (rows, columns, samples of a plane)."""
    dtype, depth = np.dtype(layout.number), layout.samples // layout.planes
    corners = [
        (plane, top, left)
        for plane in range(layout.planes)
        for top in range(0, layout.height, layout.rows)
        for left in range(0, layout.width, layout.columns)
    ]
    for (plane, top, left), (place, count) in zip(corners, layout.parts, strict=True):
        # The last strip is as high as what is left; the last tile is as high as any, and need not be read to its end.
        rows = min(layout.rows, layout.height - top)
        shape = (rows, layout.columns, depth)
        size = math.prod(shape) * dtype.itemsize
        file.seek(place)
        content = _unpacked(file.read(count), layout.compression, rows, size)
        if len(content) < size:
            raise ValueError(f"a strip or tile has {len(content)} bytes, expected {size}")
        yield plane, top, left, _numbers(content[:size], shape, dtype, layout.predictor)


def _unpacked(content: bytes, compression: int, rows: int, size: int) -> bytes:
    if compression == 1:
        return content
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(content, size)
    return _unpacked_by_pillow(content, compression, rows, size // rows)


def _unpacked_by_pillow(content: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Return what a strip or tile holds: Pillow reads it as a gray picture of 8 bits, a pixel for each byte."""
    count = len(content)
    entries = {
        256: row_bytes,
        257: rows,
        258: 8,
        259: compression,
        262: 1,
        273: 8,
        277: 1,
        278: rows,
        279: count,
    }
    directory = struct.pack("<H", len(entries))
    for tag, value in entries.items():
        directory += struct.pack("<HHII", tag, 4, 1, value)
    padding = b"\0" * (count % 2)
    head = b"II*\0" + struct.pack("<I", 8 + count + len(padding))
    with Image.open(io.BytesIO(head + content + padding + directory + b"\0" * 4), formats=("TIFF",)) as image:
        return image.tobytes()


def _numbers(content: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any], predictor: int) -> npt.NDArray[Any]:
    """Return a strip's or tile's samples, (rows, columns, samples)."""
    rows, columns, depth = shape
    if predictor == 3:
        # Differences of bytes, with the numbers' first bytes in front, then their second ...
        steps = np.frombuffer(content, np.uint8).reshape(rows, -1, depth)
        planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, columns * depth)
        numbers = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
        return numbers.reshape(shape)
    numbers = np.frombuffer(content, dtype).reshape(shape)
    if predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        steps = numbers.astype(dtype.newbyteorder("=")).view(whole)
        return np.cumsum(steps, axis=1, dtype=whole).view(dtype.newbyteorder("="))
    return numbers


def _fractions(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return whole numbers over the largest of their kind, and floating ones as they are: 0 to 1."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise RefusedError(f"its samples go from {low:g} to {high:g}, expected 0 to 1")
    return values.astype(np.float32)


def _scaled(values: npt.NDArray[Any], layout: Layout) -> npt.NDArray[np.float32]:
    """Return the colors' levels, 0..255."""
    if layout.space != "LAB":
        levels = 255 * _fractions(values)
        return 255 - levels if layout.photometric == 0 else levels
    if values.dtype.kind == "f":
        lightness, others = values[..., :1] * 2.55, values[..., 1:] + 128.0
    elif layout.photometric == 9:  # 16 bits are 256 times 8 of them
        lightness, others = (values[..., part] / 256.0 ** (values.itemsize - 1) for part in (slice(1), slice(1, None)))
    else:
        lightness = values[..., :1] * (255 / (256.0**values.itemsize - 1))
        others = values[..., 1:].astype(f"i{values.itemsize}") / 256.0 ** (values.itemsize - 1) + 128
    levels = np.concatenate([lightness, others], axis=-1).astype(np.float32)
    if not np.isfinite(levels).all():
        raise ValueError("it has samples that are infinite or not a number")
    return np.clip(levels, 0, 255)
