"""Weights that Caffe has written: .caffemodel, a NetParameter in the wire format of protocol buffers.

The message is walked by the numbers of its fields; of the numbers of the weights only the place is noted. Source:
src/caffe/proto/caffe.proto of BVLC Caffe, and protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.models.weights.tensor import Tensor

_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4, groups, are in no version of Caffe."""

# A VGG-19 has some 600 fields, one whose every number has a key of its own still counts each run of them as one.
_MOST_FIELDS = 50_000
_LONGEST_NAME = 1024
_LONGEST_RUN_READ = 2**20

_DAMAGED = "this is no .caffemodel, or it is damaged: fetch the file again"


@dataclass(frozen=True)
class _Field:
    """A field, or several of one number after another where they have a fixed size.

    Parameters
    ----------
    number, kind : from its key.
    value : of a varint.
    start, end : of a block, in the file.
    count, stride : of values of fixed size, the first of which is at ``start``, and their distance in bytes.
    """

    number: int
    kind: int
    value: int = 0
    start: int = 0
    end: int = 0
    count: int = 1
    stride: int = 0


@dataclass(frozen=True)
class _Run:
    """Numbers at equal distances in the file."""

    start: int
    count: int
    stride: int


def read_caffe(path: Path) -> dict[str, Tensor]:
    """Return the blobs of a .caffemodel, "conv1_1/0" (weight) and "conv1_1/1" (bias) and so on, in the file's order.

    Weights are (out, in, height, width). In files of the older form, such as those of VGG, every blob has four axes, a
    bias (1, 1, 1, out).

    Parameters
    ----------
    path : the file.

    Raises ValueError when it is damaged or of a kind that is not read, OSError. Source: src/caffe/proto/caffe.proto of
    BVLC Caffe.
    """
    with path.open("rb") as file:
        try:
            tensors = _net(path, _Wire(file))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return tensors


class _Wire:
    """A file in the wire format, read at the keys of its fields only."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._left = file, _MOST_FIELDS
        self.size = file.seek(0, io.SEEK_END)

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """Yield the fields of a message; raise ValueError where it is damaged."""
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {_MOST_FIELDS:,} fields, far more than a VGG has: {_DAMAGED}")
            head = self.at(start, min(20, end - start))
            key, size = varint(head, 0)
            number, kind, begin = key >> 3, key & 7, start + size
            if not number or kind not in (_VARINT, _FIXED64, _BLOCK, _FIXED32):
                raise ValueError(f"at byte {start} there is no field that Caffe writes: {_DAMAGED}")
            if kind in (_FIXED64, _FIXED32):
                width = 8 if kind == _FIXED64 else 4
                count = self._run(start, end, head[:size], width)
                field = _Field(number, kind, start=begin, count=count, stride=size + width)
                start = start + count * field.stride if count else end + 1
            else:
                value, after = varint(head, size)
                start += after + (value if kind == _BLOCK else 0)
                field = _Field(number, kind, value, start - value, start)
            if start > end:
                found = (
                    f"a field ends at byte {start:,}, the file at {self.size:,}"
                    if end == self.size
                    else "a field is cut"
                )
                raise ValueError(f"{found}: the file was cut off or is damaged, fetch it again")
            yield field

    def at(self, start: int, size: int) -> bytes:
        """Return bytes of the file."""
        self._file.seek(start)
        return self._file.read(size)

    def _run(self, start: int, end: int, key: bytes, width: int) -> int:
        """Return how many values of ``width`` bytes, each behind the same key, follow each other: 0 if one is cut."""
        stride, count, size = len(key) + width, 0, 64
        expected = np.frombuffer(key, np.uint8)
        while (asked := min(size // stride, (end - start) // stride)) > 0:
            rows = np.frombuffer(self.at(start, asked * stride), np.uint8).reshape(-1, stride)
            same = (rows[:, : len(key)] == expected).all(1)
            if not same.all():
                return count + int(same.argmin())
            count, start = count + asked, start + asked * stride
            size = min(2 * size, _LONGEST_RUN_READ)
        return count


def varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a varint and the position behind it."""
    value = 0
    for index, byte in enumerate(data[start : start + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value & (2**64 - 1), start + index + 1
    raise ValueError(f"a number has no end: {_DAMAGED}")


# ---- Caffe's messages ----


def _net(path: Path, wire: _Wire) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for field in wire.fields(0, wire.size):
        if field.number not in (2, 100):
            continue
        name, blobs = _layer(wire, field)
        for index, blob in enumerate(blobs):
            tensor = _blob(path, wire, f"{name}/{index}", blob)
            if tensor.name in tensors:
                raise ValueError(f"it has two layers called {name!r}: save it again with one of them")
            tensors[tensor.name] = tensor
    if not tensors:
        raise ValueError("it has no layer with weights: give the .caffemodel, not the network's definition (.prototxt)")
    return tensors


def _layer(wire: _Wire, layer: _Field) -> tuple[str, Sequence[_Field]]:
    """Return the name and the blobs of a LayerParameter (field 100) or a V1LayerParameter (field 2)."""
    named, held = (4, 6) if layer.number == 2 else (1, 7)
    name, blobs = "", []
    for field in wire.fields(*_block(layer)):
        if field.number == named:
            start, end = _block(field)
            if end - start > _LONGEST_NAME:
                raise ValueError(f"a layer has a name of {end - start:,} bytes: {_DAMAGED}")
            name = wire.at(start, end - start).decode("utf-8", "backslashreplace")
        elif field.number == held:
            blobs.append(field)
        elif field.number == 1:
            raise ValueError(
                "its layers are in Caffe's form of 2013 (V0): convert it with Caffe's upgrade_net_proto_binary"
            )
    return name, blobs


def _blob(path: Path, wire: _Wire, name: str, blob: _Field) -> Tensor:
    """Return a BlobProto; raise ValueError when its numbers are not as many as its shape says."""
    older: dict[int, int] = {}
    shape: list[int] = []
    runs: dict[int, list[_Run]] = {4: [], 8: []}
    for field in wire.fields(*_block(blob)):
        match field.number, field.kind:
            case 1 | 2 | 3 | 4, 0:
                older[field.number] = field.value
            case 5 | 8, kind:
                width = 4 if field.number == 5 else 8
                if kind == _BLOCK and not (field.end - field.start) % width:
                    runs[width].append(_Run(field.start, (field.end - field.start) // width, width))
                elif kind == (_FIXED32 if width == 4 else _FIXED64):
                    runs[width].append(_Run(field.start, field.count, field.stride))
                else:
                    raise ValueError(f"the numbers of {name!r} are no whole ones of {width} bytes: {_DAMAGED}")
            case 7, _:
                shape.extend(_sizes(wire, field))
    width = 8 if runs[8] else 4
    # As in Caffe, the four sizes go before the shape: files with both come from a time between the two.
    sizes = tuple(older.get(axis, 0) for axis in range(1, 5)) if older else tuple(shape)
    count = sum(run.count for run in runs[width])
    if len(sizes) > 32 or math.prod(max(1, size) for size in sizes) > wire.size or math.prod(sizes) != count:
        raise ValueError(f"{name!r} has {count:,} numbers, its shape is {sizes[:32]}: {_DAMAGED}")
    return Tensor(name, sizes, lambda: _numbers(path, sizes, np.dtype(f"<f{width}"), runs[width]))


def _sizes(wire: _Wire, shape: _Field) -> Iterator[int]:
    """Yield the sizes in a BlobShape, packed or not."""
    for field in wire.fields(*_block(shape)):
        if field.number == 1 and field.kind == _VARINT:
            yield field.value
        elif field.number == 1:
            start, end = _block(field)
            data, position = wire.at(start, min(end - start, 10 * 33)), 0
            while position < len(data):
                size, position = varint(data, position)
                yield size


def _block(field: _Field) -> tuple[int, int]:
    if field.kind != _BLOCK:
        raise ValueError(f"a number stands in place of a message: {_DAMAGED}")
    return field.start, field.end


def _numbers(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], runs: Sequence[_Run]) -> NDArray[Any]:
    try:
        numbers, done = np.empty(math.prod(shape), dtype.newbyteorder("=")), 0
        with path.open("rb") as file:
            for run in runs:
                size = (run.count - 1) * run.stride + dtype.itemsize if run.count else 0
                file.seek(run.start)
                data = file.read(size)
                if len(data) < size:
                    raise ValueError(f"{path}: it has become shorter since it was opened")
                numbers[done : done + run.count] = np.ndarray((run.count,), dtype, data, strides=(run.stride,))
                done += run.count
        return numbers.reshape(shape)
    except MemoryError:
        raise ValueError(f"{path}: there is not enough memory for an array of shape {shape}") from None
