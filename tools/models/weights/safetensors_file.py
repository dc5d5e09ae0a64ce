"""Weight files of Hugging Face's safetensors: a header in JSON, then the numbers of one tensor behind the other's."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.models.weights.byte_range import ByteRange
from tools.models.weights.kind import MAX_DIRECTORY, kind_of, shown
from tools.models.weights.tensor import Tensor, from_bfloat16

DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8",
    "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
"""The types of numbers, as they are stored."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, in the order of its header.

    Raises ValueError when it is none, is damaged or holds other types of numbers than those of NumPy and bfloat16, and
    OSError when it cannot be opened. Source: huggingface/safetensors, README.md, section "Format".
    """
    kind = kind_of(path)
    if kind != "safetensors":
        raise ValueError(f"{path}: is a file of the format {kind}, expected safetensors")
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(0)
            size = int.from_bytes(file.read(8), "little")
            if size > length - 8:
                raise ValueError(f"is cut short: its header has {size} bytes, the file {length}; download it again")
            if size > MAX_DIRECTORY:
                raise ValueError(f"its header has {size} bytes, more than any network needs")
            header = _parsed(file.read(size))
        header.pop("__metadata__", None)
        return _tensors(ByteRange(path, 8 + size, length - 8 - size), header)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def as_numbers(data: NDArray[np.uint8], kind: str, order: str = "<") -> NDArray[Any]:
    """Return stored bytes as numbers of this machine's byte order, bfloat16 as float32.

    Parameters
    ----------
    data : C-contiguous.
    kind : one of ``DTYPES``.
    order : of the bytes in a number, "<" or ">".
    """
    numbers = data.view(order + DTYPES[kind])
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    if kind == "BF16":
        return from_bfloat16(numbers)
    return numbers != 0 if kind == "BOOL" else numbers


def _parsed(text: bytes) -> dict[str, Any]:
    """Return the header; raises ValueError."""
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except _RepeatedNameError as error:
        raise ValueError(f"its header names {error} twice") from None
    except (ValueError, RecursionError):
        raise ValueError("its header is damaged: it is not the JSON text that safetensors writes") from None
    if not isinstance(header, dict):
        raise ValueError("its header is damaged: it is no JSON object")
    return header


class _RepeatedNameError(Exception):
    """A name that is twice in a JSON object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedNameError(shown(name))
        found[name] = value
    return found


def _tensors(data: ByteRange, header: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that a header lists; raises ValueError unless they cover the file to its end."""
    tensors, ranges = {}, []
    for name, entry in header.items():
        kind, shape, (begin, end) = _fields(name, entry)
        size = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
        if end - begin != size:
            raise ValueError(f"{shown(name)} takes {end - begin} bytes, a tensor of {kind} of the shape {shape} {size}")
        ranges.append((begin, end, name))
        tensors[name] = Tensor(name, shape, partial(_read, data, begin, size, kind, shape))
    reached = 0
    for begin, end, name in sorted(ranges):
        if begin != reached:
            raise ValueError(
                f"{shown(name)} begins at byte {begin} of the data, expected {reached}, the end of the last"
            )
        reached = end
    if reached > data.size:
        raise ValueError(f"is cut short: it has {data.size} bytes of data, its tensors {reached}; download it again")
    if reached < data.size:
        raise ValueError(f"has {data.size - reached} bytes behind its last tensor, expected none; download it again")
    if not tensors:
        raise ValueError("holds no tensors, expected the weights of a network")
    return tensors


def _fields(name: str, entry: Any) -> tuple[str, tuple[int, ...], list[int]]:
    """Return type, shape and range of a tensor; raises ValueError unless they are of the right kinds."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise ValueError(f"{shown(name)} is described without dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{shown(name)} has numbers of another type than {', '.join(DTYPES)}")
    if not _are_whole(shape) or not _are_whole(offsets) or len(offsets) != 2 or len(shape) > 32:
        raise ValueError(f"{shown(name)} has a shape or data_offsets that are no lists of whole numbers")
    if math.prod(size or 1 for size in shape) >= 1 << 48:
        raise ValueError(f"{shown(name)} has the shape {tuple(shape)}, which no file can hold")
    return kind, tuple(shape), offsets


def _are_whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _read(data: ByteRange, begin: int, size: int, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return as_numbers(data.numbers(begin, np.uint8, (size,)), kind).reshape(shape)
