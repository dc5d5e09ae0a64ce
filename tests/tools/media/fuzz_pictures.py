"""Damaged and hostile picture files, made from a seed.

Run as ``python -m tests.tools.media.fuzz_pictures --count 20000 --seed 1``.
Each is read as a tool reads it. It has to end with a picture or with one sentence that names the file, within seconds,
and within the memory that was told before. What came of the files is counted.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tools.media.tiff_files import DEFLATE, LZW, PACKBITS, tiff_file
from tools.media.images import extent, load_image, read_text

SECONDS = 10.0
"""No file may take longer, even on a busy machine."""

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def seeds() -> dict[str, bytes]:
    """Return small files of every kind that is read."""
    random_ = np.random.default_rng(0)
    rgba = random_.integers(0, 256, (24, 31, 4), dtype=np.uint8)
    color, gray = Image.fromarray(rgba), Image.fromarray(rgba[..., 0])
    rgb, exif = color.convert("RGB"), Image.Exif()
    exif[274], exif[270] = 6, "a description"
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    both = {"exif": exif.tobytes()}
    wanted: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "png": (color, "PNG", both),
        "palette png": (rgb.quantize(8), "PNG", {"transparency": b"\xff\x80", "optimize": True}),
        "1-bit png": (gray.convert("1"), "PNG", {}),
        "deep png": (Image.fromarray(rgba[..., 0].astype(np.uint16) * 257), "PNG", {}),
        "jpeg": (rgb, "JPEG", both),
        "progressive jpeg": (rgb, "JPEG", {"progressive": True}),
        "cmyk jpeg": (rgb.convert("CMYK"), "JPEG", {}),
        "webp": (color, "WEBP", both),
        "lossless webp": (color, "WEBP", {"lossless": True}),
        "tiff": (rgb, "TIFF", {}),
        "lzw tiff": (color, "TIFF", {"compression": "tiff_lzw"}),
        "fax tiff": (gray.convert("1"), "TIFF", {"compression": "group4"}),
        "jpeg tiff": (rgb, "TIFF", {"compression": "jpeg"}),
        "gif": (gray, "GIF", {"save_all": True, "append_images": [gray.rotate(90)], "transparency": 3}),
        "bmp": (rgb, "BMP", {}),
        "palette bmp": (rgb.quantize(16), "BMP", {}),
        "ppm": (rgb, "PPM", {}),
        "jpeg 2000": (rgb, "JPEG2000", {}),
    }
    files = {}
    for name, (image, kind, options) in wanted.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    deep = random_.integers(0, 65536, (24, 31, 4), dtype=np.uint16)
    floating = random_.random((24, 31, 3)).astype(np.float32)
    files["planar tiff"] = tiff_file(deep[..., :3], 2, planes=True, rows=7)
    files["predicted tiff"] = tiff_file(deep, 2, compression=LZW, predictor=2, further={338: [2]})
    files["floating tiff"] = tiff_file(floating, 2, compression=DEFLATE, predictor=3, order=">")
    files["tiled tiff"] = tiff_file(floating, 8, compression=PACKBITS, tile=(16, 16))
    files["inks and alpha tiff"] = tiff_file(np.dstack([deep, deep[..., :1]]), 5, further={338: [1]})
    return files


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Return a file with some of it changed: by bytes, by numbers of its format, or cut, doubled and exchanged."""
    bytes_ = bytearray(content)
    ways = [_bytes, _bytes, _part]
    if content.startswith(b"\x89PNG"):
        ways += [_png, _png]
    elif content[:2] in (b"II", b"MM"):
        ways += [_tiff, _tiff]
    else:
        ways += [_number]
    for _ in range(draw.choice([1, 1, 2, 4])):
        draw.choice(ways)(draw, bytes_)
    return bytes(bytes_)


def _bytes(draw: random.Random, content: bytearray) -> None:
    # Most of what can go wrong is decided by the first bytes.
    region = min(draw.choice([40, 200, len(content)]), len(content))
    for _ in range(draw.choice([1, 3, 10]) if region else 0):
        content[draw.randrange(region)] = draw.choice([0, 255, draw.randrange(256)])


def _number(draw: random.Random, content: bytearray) -> None:
    size = draw.choice([2, 4])
    place = draw.randrange(max(1, min(200, len(content) - size)))
    value = draw.choice(NUMBERS) & (256**size - 1)
    content[place : place + size] = value.to_bytes(size, draw.choice(["little", "big"]))


def _part(draw: random.Random, content: bytearray) -> None:
    start = draw.randrange(len(content) + 1)
    stop = min(len(content), start + draw.choice([1, 10, 100, len(content)]))
    part = content[start:stop]
    content[start:stop] = draw.choice([b"", part * draw.choice([2, 50]), bytes(len(part)), draw.randbytes(len(part))])


def _png(draw: random.Random, content: bytearray) -> None:
    """Change a chunk of a PNG, or add one, so that its checksum is right."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        chunks.append((kind, bytes(content[place + 8 : place + 8 + length])))
        place += 12 + length
    if not chunks:
        return
    index = draw.randrange(len(chunks))
    kind, data = chunks[index]
    changed = bytearray(data)
    if kind == b"IHDR" and len(data) == 13:
        width, height, depth, color, *rest = struct.unpack(">IIBBBBB", data)
        sizes = (0, 1, 24, 31, 1000, 14_000, 70_000, 2**31 - 1)
        width, height = draw.choice([width, *sizes]), draw.choice([height, *sizes])
        depth, color = draw.choice([depth, 1, 2, 4, 8, 16]), draw.choice([color, 0, 2, 3, 4, 6])
        changed = bytearray(struct.pack(">IIBBBBB", width, height, depth, color, *rest))
    elif changed:
        _bytes(draw, changed)
    added = [(kind, bytes(changed))]
    if draw.random() < 0.3:
        text = zlib.compress(b"x" * draw.choice([10, 3_000_000]))
        name = draw.choice([b"Comment", b"XML:com.adobe.xmp", b"Raw profile type exif", b""])
        added.append((b"zTXt", name + b"\0\0" + text))
        added.append((draw.choice([b"iCCP", b"eXIf", b"tRNS", b"acTL", b"fcTL", b"PLTE"]), name + b"\0\0" + text))
    chunks[index : index + 1] = added if draw.random() < 0.9 else []
    content[8:] = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _tiff(draw: random.Random, content: bytearray) -> None:
    """Change an entry of a TIFF's first directory."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 10:
        return
    (directory,) = struct.unpack(f"{order}I", content[4:8])
    if directory + 2 > len(content):
        return
    (count,) = struct.unpack(f"{order}H", content[directory : directory + 2])
    place = directory + 2 + 12 * draw.randrange(max(count, 1))
    if place + 12 > len(content):
        return
    field = draw.choice(["tag", "kind", "count", "value", "value", "value"])
    at, size = {"tag": (0, 2), "kind": (2, 2), "count": (4, 4), "value": (8, draw.choice([2, 4]))}[field]
    tags = (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 330, 338, 339, 34675, 50706)
    value = draw.choice(
        tags if field == "tag" else (*NUMBERS, 3, 4, 5, 6, 8, 9, 13, 16, 32, 64, draw.randrange(10_000))
    )
    content[place + at : place + at + size] = (value & (256**size - 1)).to_bytes(
        size, "little" if order == "<" else "big"
    )


def files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files with the kinds that they were made of, the same for the same seed."""
    draw, kinds = random.Random(seed), list(seeds().items())
    for number in range(count):
        name, content = kinds[number % len(kinds)]
        yield name, damaged(draw, content)


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """Read damaged files; return how many ended in which way. A file that ends otherwise is left in the folder."""
    counts: Counter[str] = Counter()
    path = folder / "picture"
    for name, content in files(count, seed):
        path.write_bytes(content)
        began = time.perf_counter()
        problem, outcome = _problem(path)
        seconds = time.perf_counter() - began
        if seconds > SECONDS:
            problem = f"took {seconds:.1f} s"
        counts[outcome] += 1
        if problem is not None:
            kept = path.rename(folder / f"problem-{counts['problems']}")
            counts["problems"] += 1
            print(f"{kept} (from a {name}): {problem}")
    return counts


def _problem(path: Path) -> tuple[str | None, str]:
    """Return what is wrong with how a file was read, or None, and how it ended."""
    try:
        told = extent(path)
        picture = load_image(path)
        read_text(path)
    except ValueError as error:
        message = str(error)
        if not message.startswith(f"cannot read {str(path)!r}: ") or "\n" in message or len(message) > 500:
            return f"said {message!r}", "wrong sentences"
        return None, "refused as damaged" if "damaged" in message.partition(": ")[2] else "refused for another reason"
    except Exception as error:
        return f"raised {error!r}", "tracebacks"
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype != np.float32 or pixels.ndim != 3 or not (pixels.min() >= 0 and pixels.max() <= 255):
        return "gave pixels outside of 0 to 255", "pictures"
    if alpha is not None and not (alpha.shape == pixels.shape[:2] and alpha.min() >= 0 and alpha.max() <= 1):
        return "gave an alpha outside of 0 to 1", "pictures"
    if (told.height, told.width) != picture.size and not picture.note:
        return f"was told to be {told}, and is {picture.size}", "pictures"
    return None, "pictures"


def main() -> None:
    """Fuzz as many files as asked for, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    counts = fuzz(arguments.count, arguments.seed, folder)
    took = time.perf_counter() - began
    print(f"{arguments.count} files, {took:.0f} s: {dict(sorted(counts.items()))}; problems are kept in {folder}")


if __name__ == "__main__":
    main()
