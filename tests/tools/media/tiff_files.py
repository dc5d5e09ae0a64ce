"""TIFF files of any kind of samples, as other programs write them."""

import struct
import zlib

import numpy as np

UNCOMPRESSED, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


def tiff_file(
    samples,
    photometric,
    *,
    planes=False,
    rows=None,
    tile=None,
    compression=UNCOMPRESSED,
    predictor=1,
    order="<",
    sample_format=None,
    further=None,
):
    """Return a TIFF file of samples (H, W, S); ``further`` are more tags, {number: whole numbers or bytes}."""
    height, width, depth = samples.shape
    kind = samples.dtype
    samples = samples.astype(kind.newbyteorder(order))
    layers = [samples[..., index : index + 1] for index in range(depth)] if planes else [samples]
    rows = rows or height
    parts = []
    for layer in layers:
        if tile:
            down, across = (-(-side // step) * step for side, step in zip((height, width), tile, strict=True))
            layer = np.pad(layer, ((0, down - height), (0, across - width), (0, 0)))
            parts += [
                layer[top : top + tile[0], left : left + tile[1]]
                for top in range(0, down, tile[0])
                for left in range(0, across, tile[1])
            ]
        else:
            parts += [layer[top : top + rows] for top in range(0, height, rows)]
    content, places, counts = b"", [], []
    for part in parts:
        packed = PACKERS[compression](differences(part, predictor))
        places.append(8 + len(content))
        counts.append(len(packed))
        content += packed + b"\0" * (len(packed) % 2)
    formats = {"u": 1, "i": 2, "f": 3}
    entries = {
        256: [width],
        257: [height],
        258: [8 * kind.itemsize] * depth,
        259: [compression],
        262: [photometric],
        277: [depth],
        284: [2 if planes else 1],
        317: [predictor],
        339: sample_format or [formats[kind.kind]] * depth,
        **(
            {322: [tile[1]], 323: [tile[0]], 324: places, 325: counts}
            if tile
            else {273: places, 278: [rows], 279: counts}
        ),
        **(further or {}),
    }
    directory = 8 + len(content)
    outside = directory + 2 + 12 * len(entries) + 4
    table, tail = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        if isinstance(values, bytes):
            number, count, packed = 7, len(values), values
        else:
            number, count, packed = 4, len(values), struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > 4:
            packed, tail = struct.pack(f"{order}I", outside + len(tail)), tail + packed + b"\0" * (len(packed) % 2)
        table += struct.pack(f"{order}HHI", tag, number, count) + packed.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", directory) + content + table + b"\0" * 4 + tail


def differences(part, predictor):
    """Return the bytes of a strip or tile: of the samples, or of their differences along the rows."""
    if predictor == 2:
        whole = part.view(np.dtype(f"u{part.dtype.itemsize}").newbyteorder(part.dtype.byteorder))
        steps = whole.copy()
        steps[:, 1:] = whole[:, 1:] - whole[:, :-1]
        return steps.tobytes()
    if predictor == 3:
        rows, columns, depth = part.shape
        big = np.ascontiguousarray(part.astype(part.dtype.newbyteorder(">"))).view(np.uint8)
        planes = big.reshape(rows, columns * depth, -1).transpose(0, 2, 1).reshape(rows, -1, depth)
        steps = planes.copy()
        steps[:, 1:] = planes[:, 1:] - planes[:, :-1]
        return steps.tobytes()
    return part.tobytes()


def lzw(content):
    """Return bytes in TIFF's LZW, without ever using a table: a clear code before it would need more than 9 bits."""
    bits = ""
    for start in range(0, len(content), 250):
        bits += f"{256:09b}" + "".join(f"{byte:09b}" for byte in content[start : start + 250])
    bits += f"{257:09b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def packbits(content):
    """Return bytes in PackBits, all of them as they are."""
    parts = [content[start : start + 128] for start in range(0, len(content), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


PACKERS = {UNCOMPRESSED: bytes, LZW: lzw, DEFLATE: zlib.compress, PACKBITS: packbits}
