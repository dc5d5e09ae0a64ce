"""What a picture's file is, seen by its bytes before anything is decoded."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO


class RefusedError(ValueError):
    """Why a file that need not be damaged is not read, in words that need nothing around them."""


def sentence(error: BaseException) -> str:
    """Return what an error of a library says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MAX_METADATA = 16 << 20
"""Bytes of one piece of a PNG's compressed metadata: a printer's color profile has a few million, a bomb any number."""

MAX_PIECES = 100_000
"""Chunks of a PNG, or segments in front of a JPEG's picture: a PNG of a gigabyte has as many."""

MAX_SLOW = 20_000_000
"""Bytes or pixels that are read one by one, in a few seconds; of those written as text, a tenth."""

_LONGEST_HEADER = 1 << 16

_ADDRESS = re.compile(r"(https?|ftps?|file|s3|gs|data|blob):(/*)(.*)", re.IGNORECASE | re.DOTALL)

# Text that says how a picture is to be turned: Pillow looks for it in these.
_TURNING = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"eXIf")
_HEADER = len(PNG) + 25

_SAVE_AS = "save it as PNG or JPEG first"
_DEVELOP = "develop it first, and save that as PNG or JPEG"

_BEGINNINGS = {
    b"%PDF": ("a PDF document", _SAVE_AS),
    b"8BPS": ("a Photoshop document", _SAVE_AS),
    b"gimp xcf": ("a GIMP document", _SAVE_AS),
    b"v/1\x01": ("an OpenEXR picture", _SAVE_AS),
    b"#?RADIANCE": ("a Radiance HDR picture", _SAVE_AS),
    b"#?RGBE": ("a Radiance HDR picture", _SAVE_AS),
    b"\0\0\x01\0": ("an icon", _SAVE_AS),
    b"PK\x03\x04": ("a ZIP archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
    b"II*\0\x10\0\0\0CR": ("a camera's raw file", _DEVELOP),
    b"IIRO": ("a camera's raw file", _DEVELOP),
    b"IIU\0": ("a camera's raw file", _DEVELOP),
    b"FUJIFILM": ("a camera's raw file", _DEVELOP),
    b"version https://git-lfs": ("a pointer to a file in Git LFS", "fetch the file itself with: git lfs pull"),
}

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")


def address(path: str | os.PathLike[str]) -> str | None:
    """Return the web address that was given in place of a file's path, or None.

    In a path, two slashes have become one: they are put back.
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    if match is None:
        return None
    scheme, slashes, rest = match.groups()
    if scheme.lower() == "file":
        return f"{scheme}:///{rest}"
    return f"{scheme}:{'//' if slashes else ''}{rest}"


def plugin_of(head: bytes) -> str | None:
    """Return the kind of a picture that Pillow reads with a plug-in, ``"HEIC"`` or ``"JPEG XL"``, or None.

    Parameters
    ----------
    head : what the file begins with, 64 bytes or more.
    """
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        if b"avif" not in brands and b"avis" not in brands and any(brand in _HEIC_BRANDS for brand in brands):
            return "HEIC"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JPEG XL"
    return None


def other_kind(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that is no picture to be read, and what to do with it; None for what is not known."""
    for beginning, found in _BEGINNINGS.items():
        if head.startswith(beginning):
            return found
    if head[4:8] == b"ftyp":
        if b"crx " in _brands(head):
            return "a camera's raw file", _DEVELOP
        if not {b"avif", b"avis"} & set(_brands(head)):
            return "a video", "save one of its pictures as PNG or JPEG first"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the picture itself"
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!doctype svg")) and b"<svg" in text):
        return "an SVG drawing", _SAVE_AS
    return None


def _brands(head: bytes) -> list[bytes]:
    """Return the brands of an ISO media file, as far as ``head`` has them."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]


def jpeg_scans(file: BinaryIO) -> int:
    """Return how many passes over the picture a JPEG file has."""
    file.seek(0)
    scans, last = 0, b""
    while part := file.read(1 << 20):
        # In compressed data a byte of 255 is followed by a 0 or by a number of 0xD0 to 0xD7.
        scans += (last + part).count(b"\xff\xda")
        last = part[-1:]
    return scans


def is_progressive(file: BinaryIO) -> bool:
    """Say whether a JPEG file is of the kind of which a decoder holds all coefficients at once.

    Raises RefusedError for more in front of the picture than any program writes: Pillow reads it byte by byte.
    """
    place, found, steps = 2, False, 0
    while True:
        file.seek(place)
        marker = file.read(4)
        steps += 1
        if steps > MAX_PIECES:
            raise RefusedError(f"it has more than {MAX_PIECES:,} pieces of metadata: save it anew")
        if len(marker) < 4 or marker[0] != 0xFF or marker[1] in (0xD9, 0xDA):
            return found
        found |= marker[1] in (0xC2, 0xC6, 0xCA, 0xCE)
        if marker[1] == 0xFF:  # filling
            place += 1
        elif marker[1] in (0x00, 0x01) or 0xD0 <= marker[1] <= 0xD8:  # these have no content
            place += 2
        else:
            place += 2 + int.from_bytes(marker[2:], "big")


def check_ppm(file: BinaryIO) -> None:
    """Raise RefusedError for a PPM, PGM or PBM file that would be read byte by byte for long.

    Pillow reads headers so, and pixels that are written as decimal numbers.
    """
    file.seek(0)
    numbers = re.sub(rb"#[^\r\n]*", b"", file.read(_LONGEST_HEADER)).split(maxsplit=3)
    if len(numbers) < 4 or not (numbers[1].isdigit() and numbers[2].isdigit()):
        raise RefusedError("it has no size where a PPM has one, or is damaged")
    pixels = int(numbers[1][:10]) * int(numbers[2][:10])
    if numbers[0] in (b"P2", b"P3") and pixels > MAX_SLOW // 10:
        raise RefusedError(f"it has more than {MAX_SLOW // 10:,} pixels, written as text: save it as PNG first")


def check_bmp(head: bytes, file: BinaryIO) -> None:
    """Raise RefusedError for a large compressed BMP, which Pillow unpacks byte by byte."""
    compression = int.from_bytes(head[30:34], "little")
    width, height = (abs(int.from_bytes(head[place : place + 4], "little", signed=True)) for place in (18, 22))
    if compression in (1, 2) and max(file.seek(0, os.SEEK_END), (compression - 1) * width * height) > MAX_SLOW:
        raise RefusedError("it is a large BMP of a compressed kind: save it as PNG first")


def lean_png(file: BinaryIO, with_text: bool) -> BinaryIO:
    """Return a PNG file without the metadata that nobody asks for, and without what would burst when unpacked.

    What says how the picture is to be turned stands in front of it then, where it is seen before anything is decoded.
    The file itself where nothing is to be done, and where it is damaged. Raises RefusedError for too many chunks.

    Parameters
    ----------
    with_text : keep plain international text; compressed text is left out unless it may say how to turn the picture.
    """
    end = file.seek(0, os.SEEK_END)
    place, changed, behind = len(PNG), False, False
    kept: list[tuple[int, int]] = []
    turning: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    pieces = 0
    while place + 12 <= end:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        following = place + 12 + length
        if following > end:
            break
        pieces += 1
        if pieces > MAX_PIECES:
            raise RefusedError(f"it has more than {MAX_PIECES:,} chunks: save it anew")
        behind |= kind == b"IDAT"
        content = file.read(length) if kind in _ASKED_FOR else b""
        name = kind if kind == b"eXIf" else content.partition(b"\0")[0]
        turns = name in _TURNING
        if kind in _ASKED_FOR and ((turns and name in seen) or not _ASKED_FOR[kind](content, with_text)):
            changed = True
        elif turns and behind:
            turning.append((place, following))
            changed = True
        elif kept and kept[-1][1] == place:
            kept[-1] = (kept[-1][0], following)
        else:
            kept.append((place, following))
        seen.add(name)
        place = following
    file.seek(0)
    if not changed or not kept or kept[0][1] < _HEADER:
        return file
    lean = io.BytesIO()
    first = (kept[0][0], min(kept[0][1], _HEADER))
    for start, stop in [(0, len(PNG)), first, *turning, (first[1], kept[0][1]), *kept[1:], (place, end)]:
        file.seek(start)
        lean.write(file.read(stop - start))
    lean.seek(0)
    return lean


def _asks_for_text(content: bytes, with_text: bool) -> bool:
    name, _, rest = content.partition(b"\0")
    return name in _TURNING and not _bursts(rest[1:])


def _asks_for_international(content: bytes, with_text: bool) -> bool:
    name, _, rest = content.partition(b"\0")
    compressed = rest[:1] == b"\1"
    if name not in _TURNING:
        return with_text and not compressed
    return not compressed or not _bursts(b"".join(rest[2:].split(b"\0", 2)[2:]))


def _asks_for_profile(content: bytes, with_text: bool) -> bool:
    return not _bursts(content.partition(b"\0")[2][1:])


def _bursts(compressed: bytes) -> bool:
    """Say whether compressed bytes are more than MAX_METADATA; what is damaged is not."""
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(compressed, MAX_METADATA)
    except zlib.error:
        return False
    return bool(unpacker.unconsumed_tail)


_ASKED_FOR: dict[bytes, Callable[[bytes, bool], bool]] = {
    b"tEXt": lambda content, with_text: content.partition(b"\0")[0] in _TURNING,
    b"zTXt": _asks_for_text,
    b"iTXt": _asks_for_international,
    b"iCCP": _asks_for_profile,
    b"eXIf": lambda content, with_text: True,
}
