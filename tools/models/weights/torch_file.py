"""Weight files of PyTorch: what torch.save writes of a state_dict, as a zip archive since 1.6, as a stream before.

Both are a pickle, which says which tensors there are, and rows of numbers, in which the tensors lie.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tools.models.weights.byte_range import ByteRange, whole_file
from tools.models.weights.kind import MAX_DIRECTORY, Member, kind_of, shown, zip_members
from tools.models.weights.safetensors_file import DTYPES, as_numbers
from tools.models.weights.tensor import Tensor
from tools.models.weights.torch_pickle import Storage, Strided, unpickle

# safetensors' name for each of PyTorch's types.
_KINDS = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL",
}  # fmt: skip

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# What keeps the walk through a file's dictionaries short, however they contain each other.
_MAX_ENTRIES = 300_000
_MAX_TENSORS = 20_000
_MAX_DEPTH = 32
_MAX_NAME = 500


@dataclass(frozen=True)
class _Row:
    """Where the numbers of a storage lie.

    Parameters
    ----------
    start : in the file, in bytes.
    crc : of its bytes, 0 where that is not known.
    order : of the bytes in a number, "<" or ">".
    """

    start: int
    crc: int = 0
    order: str = "<"


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state_dict, or of dictionaries, lists and tuples with such in them, in the file's order.

    A tensor's name is the keys and indices that lead to it, joined by dots. What else is there is left out.

    Raises ValueError when the file is damaged, is none of torch.save or would have to run a program, and OSError when
    it cannot be opened. Source: torch/serialization.py, functions _save and _legacy_save.
    """
    kind = kind_of(path)
    if kind != "torch":
        raise ValueError(f"{path}: is a file of the format {kind}, expected one of PyTorch")
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    # The directory's own messages name the file.
    members = zip_members(path) if zipped else {}
    try:
        data = whole_file(path)
        with path.open("rb") as file:
            value, rows = _read_zip(file, data.size, members) if zipped else _read_stream(file, data.size)
        tensors: dict[str, Tensor] = {}
        for name, strided in _named(value, "", 0, itertools.count()):
            if name in tensors:
                raise ValueError(f"has two tensors with the name {shown(name)}; save its state_dict alone")
            tensors[name] = _tensor(data, name, strided, rows)
            if len(tensors) > _MAX_TENSORS:
                raise ValueError(f"has more than {_MAX_TENSORS} tensors; save its state_dict alone")
        if not tensors:
            found = "a tensor without a name" if isinstance(value, Strided) else "no tensors"
            raise ValueError(f"holds {found}, expected a state_dict")
        return tensors
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_zip(file: BinaryIO, length: int, members: dict[str, Member]) -> tuple[Any, dict[str, _Row]]:
    """Return what was saved and where the storages lie."""
    name = min((name for name in members if name.rpartition("/")[2] == "data.pkl"), key=len)
    folder = name.removesuffix("data.pkl")
    unpickled = unpickle(_content(file, length, members, name))
    order = "<"
    if f"{folder}byteorder" in members:
        stated = _content(file, length, members, f"{folder}byteorder")
        if stated not in (b"little", b"big"):
            raise ValueError(f"its byte order is {stated[:20]!r}, expected 'little' or 'big'; download the file again")
        order = "<" if stated == b"little" else ">"
    rows = {}
    for storage in unpickled.storages.values():
        if storage.count:
            name = f"{folder}data/{storage.key}"
            start, size = _place(file, length, members, name)
            _check_size(storage, size)
            rows[storage.key] = _Row(start, members[name].crc, order)
    return unpickled.value, rows


def _content(file: BinaryIO, length: int, members: dict[str, Member], name: str) -> bytes:
    start, size = _place(file, length, members, name)
    if size > MAX_DIRECTORY:
        raise ValueError(f"its part {shown(name)} has {size} bytes, more than any network needs")
    file.seek(start)
    content = file.read(size)
    if members[name].crc not in (0, zlib.crc32(content)):
        raise ValueError(f"its part {shown(name)} is damaged: its checksum does not fit; download the file again")
    return content


def _place(file: BinaryIO, length: int, members: dict[str, Member], name: str) -> tuple[int, int]:
    """Return where the data of a file in the archive begin and how long they are."""
    member = members.get(name)
    if member is None:
        raise ValueError(f"has no part {shown(name)}, which its pickle names; download the file again")
    if not member.plain:
        raise ValueError(f"its part {shown(name)} is compressed, which torch.save never does; zip it uncompressed")
    file.seek(member.header)
    header = file.read(30)
    # The local header's own lengths: they differ from those in the directory.
    start = member.header + 30 + sum(struct.unpack_from("<HH", header, 26)) if len(header) == 30 else length
    if header[:4] != b"PK\3\4" or start + member.size > length:
        raise ValueError(f"its part {shown(name)} is damaged or cut short; download the file again")
    return start, member.size


def _read_stream(file: BinaryIO, length: int) -> tuple[Any, dict[str, _Row]]:
    """Return what was saved and where the storages lie: five pickles, then each storage behind its count."""
    head = file.read(MAX_DIRECTORY)
    magic = unpickle(head)
    protocol = unpickle(head, magic.end)
    system = unpickle(head, protocol.end)
    unpickled = unpickle(head, system.end)
    keys = unpickle(head, unpickled.end)
    if magic.value != _MAGIC or protocol.value != _PROTOCOL or not isinstance(keys.value, list):
        raise ValueError(f"is damaged: it does not begin as a file of torch.save of protocol {_PROTOCOL} does")
    rows = {}
    position = keys.end
    for key in keys.value:
        storage = unpickled.storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise ValueError("is damaged: it has numbers of no tensor; download the file again")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        rows[storage.key] = _Row(position + 8)
        size = storage.count * _item_size(storage)
        position += 8 + size
        if position > length:
            raise ValueError(f"is cut short: it has {length} bytes, its tensors reach to {position}; download it again")
        _check_size(storage, count * _item_size(storage))
    return unpickled.value, rows


def _check_size(storage: Storage, size: int) -> None:
    if size != storage.count * _item_size(storage):
        raise ValueError(
            f"is damaged: its storage {shown(storage.key)} is not of the size in its pickle; download the file again"
        )


def _item_size(storage: Storage) -> int:
    if storage.kind not in _KINDS:
        raise ValueError(f"has numbers of the type {shown(storage.kind)}, expected one of {', '.join(_KINDS)}")
    return np.dtype(DTYPES[_KINDS[storage.kind]]).itemsize


def _named(value: Any, name: str, depth: int, entries: Iterator[int]) -> Iterator[tuple[str, Strided]]:
    """Yield the tensors in dictionaries, lists and tuples, with the keys that lead to them."""
    if len(name) > _MAX_NAME:
        raise ValueError(f"has a key of more than {_MAX_NAME} characters; save its state_dict alone")
    if isinstance(value, Strided) and depth:
        yield name, value
    if not isinstance(value, dict | list | tuple):
        return
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if depth == _MAX_DEPTH or next(entries) == _MAX_ENTRIES:
            raise ValueError("has too many dictionaries and lists within each other; save its state_dict alone")
        if isinstance(entry, Strided | dict | list | tuple):
            yield from _named(entry, f"{name}.{key}" if depth else str(key), depth + 1, entries)


def _tensor(data: ByteRange, name: str, strided: Strided, rows: dict[str, _Row]) -> Tensor:
    """Return a tensor, once it is certain that all of it lies in its storage."""
    storage, shape, stride = strided.storage, strided.shape, strided.stride
    item_size = _item_size(storage)
    count = math.prod(shape)
    start = storage.start + strided.offset
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=False)) if count else 0
    if len(shape) != len(stride) or len(shape) > 32 or (count and start + reach > storage.count):
        raise ValueError(
            f"is damaged: {shown(name)} does not lie in its {storage.count} numbers; download the file again"
        )
    if math.prod(size or 1 for size in shape) * item_size > (data.size if count else 1 << 48):
        raise ValueError(f"the tensor {shown(name)} would have more bytes than its file; save its contiguous() instead")
    if count and storage.key not in rows:
        raise ValueError(f"has no numbers for the tensor {shown(name)}; download the file again")
    row = rows.get(storage.key, _Row(0))
    return Tensor(name, shape, partial(_read, data, name, strided, row, start * item_size, reach * item_size))


def _read(data: ByteRange, name: str, strided: Strided, row: _Row, begin: int, size: int) -> NDArray[Any]:
    kind = _KINDS[strided.storage.kind]
    stored = data.numbers(row.start + begin, np.uint8, (size,))
    whole = size == strided.storage.count * _item_size(strided.storage)
    if whole and row.crc not in (0, zlib.crc32(stored.data)):
        raise ValueError(f"{data.path}: the numbers of {shown(name)} are damaged: their checksum does not fit")
    numbers = as_numbers(stored, kind, row.order)
    steps = tuple(step * numbers.itemsize for step in strided.stride)
    # Without numbers the strides say nothing, and may be larger than NumPy's.
    if not size:
        return numbers.reshape(strided.shape)
    return np.array(as_strided(numbers, strided.shape, steps), order="C", copy=None)
