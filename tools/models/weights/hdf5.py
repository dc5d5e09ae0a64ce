"""HDF5 files in the layout that h5py writes by default: what Keras keeps weights in.

Read are groups, arrays of numbers in one piece and attributes of text. Newer layouts (``libver="latest"``) and arrays
in chunks, compressed or not, are refused. Source: HDF5 File Format Specification, docs.hdfgroup.org.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tools.models.weights.byte_range import ByteRange, whole_file
from tools.models.weights.tensor import Tensor, from_bfloat16

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_NOWHERE = 2**64 - 1
"""The address of what has none."""

_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0B, 0x0C, 0x10, 0x11
"""The types of an object header's messages."""

_FLOATS = {(2, 10, 5, 0, 10, 15): "f2", (4, 23, 8, 0, 23, 127): "f4", (8, 52, 11, 0, 52, 1023): "f8"}
"""Bytes, place and bits of the exponent, place and bits of the mantissa, bias: IEEE 754."""

_BFLOAT16 = (2, 7, 8, 0, 7, 127)

# A VGG's file has some 100 objects and 100 kB besides its numbers, one with an optimizer's state three times that.
_MOST_OBJECTS = 10_000
_LONGEST_NAME = 1024
_MOST_STRUCTURE = 32 * 2**20

_AGAIN = "fetch the file again"
_NEWER = "save it again with Keras, or with h5py without libver, track_order, external links and names beyond ASCII"


@dataclass(frozen=True)
class Hdf5:
    """What a file holds.

    Parameters
    ----------
    tensors : the arrays by their path, such as "block1_conv1/kernel:0", in the file's order.
    texts : for the path of each object ("" for the root) its attributes that are text or lists of texts.
    """

    tensors: dict[str, Tensor]
    texts: dict[str, dict[str, tuple[str, ...]]]


def read_hdf5(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an HDF5 file by their path, such as "layers/conv2d_1/vars/0".

    Parameters
    ----------
    path : the file.

    Raises ValueError when the file is damaged or of a kind that is not read, OSError. What is wrong with one array is
    raised when that one is read. Source: HDF5 File Format Specification, docs.hdfgroup.org.
    """
    return parse_hdf5(whole_file(path)).tensors


def parse_hdf5(source: ByteRange) -> Hdf5:
    """Return the arrays and the texts of an HDF5 file, which may be a stretch of another file.

    Raises ValueError and OSError as ``read_hdf5`` does.
    """
    with source.opened() as file:
        try:
            return _parsed(source, _File(file, source.start, source.size))
        except struct.error:
            raise ValueError(f"{source.path}: damaged HDF5, a structure ends too early: {_AGAIN}") from None
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None


class _File:
    """The bytes of an HDF5 file's structures.

    What is read in all is bounded, so that structures that overlap or lead back to themselves end in a ValueError.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._left = min(4 * size, _MOST_STRUCTURE)
        self._heaps: dict[int, dict[int, bytes]] = {}
        self.base = 0

    def at(self, address: int, size: int, signature: bytes = b"") -> bytes:
        """Return ``size`` bytes; raise ValueError when they lie outside the file or lack the signature."""
        if self.base + address + size > self._size:
            raise ValueError("damaged HDF5, an address lies outside the file: it was cut off, fetch it again")
        self._spend(size)
        self._file.seek(self._start + self.base + address)
        found = self._file.read(size)
        if not found.startswith(signature):
            raise ValueError(f"damaged HDF5, no {signature.decode()!r} at byte {address}: {_AGAIN}")
        return found

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"damaged HDF5, its structures overlap or are longer than 32 MiB: {_AGAIN}")

    def place(self, address: int, size: int) -> int:
        """Return where an array begins, seen from the start of the file; raise ValueError when it lies outside."""
        if self.base + address + size > self._size:
            raise ValueError(f"its numbers lie outside the file, which was cut off or is damaged: {_AGAIN}")
        return self.base + address

    def in_global_heap(self, address: int, index: int, size: int) -> bytes:
        """Return the first bytes of an object of a global heap collection: the text of an attribute."""
        if address not in self._heaps:
            (length,) = struct.unpack_from("<8xQ", self.at(address, 16, b"GCOL"))
            block, position, found = self.at(address, length), 16, {}
            while position + 16 <= len(block):
                number, length = struct.unpack_from("<H6xQ", block, position)
                if not number:
                    break
                found[number] = block[position + 16 : position + 16 + length]
                position += 16 + -(-length // 8) * 8
            self._heaps[address] = found
        self._spend(size)
        text = self._heaps[address].get(index, b"")
        if len(text) < size:
            raise ValueError(f"damaged HDF5, the text of an attribute is missing: {_AGAIN}")
        return text[:size]


def _parsed(source: ByteRange, file: _File) -> Hdf5:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    waiting, groups = [("", _root(file, source.size))], set()
    while waiting:
        name, address = waiting.pop()
        if name in texts:
            raise ValueError(f"damaged HDF5, it has two objects called {name!r}: {_AGAIN}")
        messages, texts[name] = _header(file, address)
        if _SYMBOL_TABLE in messages:
            if address in groups or len(name) > _LONGEST_NAME:
                raise ValueError(f"the group {name[:80]!r} is within itself or too deep: this is no file of Keras")
            groups.add(address)
            links = _links(file, *struct.unpack_from("<QQ", messages[_SYMBOL_TABLE]))
            links = itertools.islice(links, _MOST_OBJECTS + 1)
            waiting.extend(reversed([(f"{name}/{link}" if name else link, place) for link, place in links]))
            if len(texts) + len(waiting) > _MOST_OBJECTS:
                raise ValueError(f"it has more than {_MOST_OBJECTS:,} groups and arrays: this is no file of a VGG")
        elif _LAYOUT in messages:
            tensors[name] = _tensor(source, file, name, messages, texts[name])
        elif _LINK_INFO in messages or _LINK in messages:
            raise ValueError(f"the group {name or '/'!r} is in HDF5's newer layout: {_NEWER}")
    return Hdf5(tensors, texts)


def _root(file: _File, size: int) -> int:
    """Return the address of the root group's header."""
    start = 0
    while start + 96 <= size and file.at(start, 8) != _SIGNATURE:
        start = 2 * start or 512  # a block of the user's, of a power of two, may come first
    if start + 96 > size:
        raise ValueError("not an HDF5 file: it lacks the signature")
    block = file.at(start, 96)
    version = block[8]
    if version not in (0, 1):
        raise ValueError(f"HDF5 in the layout of libver='latest' (superblock version {version}): {_NEWER}")
    if block[13] != 8 or block[14] != 8:
        raise ValueError(f"HDF5 with addresses of {block[13]} bytes, expected 8: save it again with Keras or h5py")
    shift = 4 * version
    base, end = struct.unpack_from("<Q8xQ", block, 24 + shift)
    (root,) = struct.unpack_from("<Q", block, 64 + shift)
    if base != start:
        raise ValueError(f"damaged HDF5, its base address is {base}, expected {start}: {_AGAIN}")
    if end > size:
        raise ValueError(f"its HDF5 ends at byte {end:,}, the file at {size:,}: it was cut off, fetch it again")
    file.base = base
    return int(root)


def _header(file: _File, address: int) -> tuple[dict[int, bytes], dict[str, tuple[str, ...]]]:
    """Return the messages of an object header by type, and its attributes that are texts."""
    start = file.at(address, 16)
    if start.startswith(b"OHDR"):
        raise ValueError(f"an object is in HDF5's newer layout (object header version 2): {_NEWER}")
    version, left, size = struct.unpack_from("<BxH4xI", start)
    if version != 1:
        raise ValueError(f"damaged HDF5, an object header has version {version}, expected 1: {_AGAIN}")
    messages: dict[int, bytes] = {}
    texts: dict[str, tuple[str, ...]] = {}
    blocks = [(address + 16, size)]
    for place, size in blocks:
        block, position = file.at(place, size), 0
        while left and position + 8 <= size:
            kind, length, flags = struct.unpack_from("<HHB", block, position)
            body = block[position + 8 : position + 8 + length]
            if len(body) < length:
                raise ValueError(f"damaged HDF5, a message ends outside its block: {_AGAIN}")
            position, left = position + 8 + length, left - 1
            if kind == _CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", body))
            elif kind == _ATTRIBUTE:
                texts.update(_text(file, body))
            elif flags & 2:
                messages[kind] = b""  # kept elsewhere, to be shared by several objects
            else:
                messages[kind] = body
    return messages, texts


def _links(file: _File, tree: int, heap: int) -> Iterator[tuple[str, int]]:
    """Yield the names in a group, each with the address of its object header."""
    if tree == _NOWHERE:
        return
    size, segment = struct.unpack_from("<8xQ8xQ", file.at(heap, 32, b"HEAP"))
    names = file.at(segment, size)
    waiting: list[tuple[int, int | None]] = [(tree, None)]
    while waiting:
        address, level = waiting.pop()
        if level == -1:
            (count,) = struct.unpack_from("<6xH", file.at(address, 8, b"SNOD"))
            for offset, header, cached in struct.iter_unpack("<QQI20x", file.at(address + 8, 40 * count)):
                end = names.find(b"\0", offset, offset + _LONGEST_NAME)
                if end <= offset:
                    raise ValueError(f"damaged HDF5, a name is empty, endless or missing: {_AGAIN}")
                if cached != 2:  # a symbolic link, which names what is there anyway
                    yield names[offset:end].decode("utf-8", "backslashreplace"), header
            continue
        kind, found, count = struct.unpack_from("<4xBBH", file.at(address, 24, b"TREE"))
        if kind != 0 or level not in (None, found):
            raise ValueError(f"damaged HDF5, a group's tree does not fit together: {_AGAIN}")
        children = [child for _, child in struct.iter_unpack("<QQ", file.at(address + 24, 16 * count))]
        waiting.extend((child, found - 1) for child in reversed(children))


# ---- arrays ----


def _tensor(
    source: ByteRange, file: _File, name: str, messages: dict[int, bytes], texts: dict[str, tuple[str, ...]]
) -> Tensor:
    shape = _shape(messages.get(_DATASPACE, b""))
    try:
        if shape is None:
            raise ValueError("it has no shape that could be read")
        read = _reading(source, file, shape, messages, texts)
    except (ValueError, struct.error) as error:
        message = f"{source.path}: {name!r} cannot be read: {error}"

        def read() -> NDArray[Any]:
            raise ValueError(message)

    return Tensor(name, shape or (), read)


def _reading(
    source: ByteRange,
    file: _File,
    shape: tuple[int, ...],
    messages: dict[int, bytes],
    texts: dict[str, tuple[str, ...]],
) -> Callable[[], NDArray[Any]]:
    """Return what reads an array; raise ValueError when it is not stored in one piece, or not as numbers."""
    kind = _number_type(messages.get(_DATATYPE, b""), texts.get("dtype") == ("bfloat16",))
    dtype = np.dtype("<u2" if kind == "bfloat16" else kind)
    size = math.prod(shape) * dtype.itemsize
    layout = messages[_LAYOUT]
    version, where = struct.unpack_from("<BB", layout)
    if version not in (3, 4):
        raise ValueError(f"its layout has version {version}, expected 3: save the file again with Keras or h5py")
    if _EXTERNAL in messages:
        raise ValueError("its numbers are in another file: save the weights in one file")
    if where == 0:
        (length,) = struct.unpack_from("<H", layout, 2)
        content = layout[4 : 4 + length]
        held = ByteRange(source.path, 0, len(content), content)
        offset = 0
    elif where == 1:
        address, length = struct.unpack_from("<QQ", layout, 2)
        if address == _NOWHERE and size:
            raise ValueError("nothing was ever written to it")
        held, offset = source, file.place(address, length) if size else 0
    else:
        found = "compressed" if _FILTERS in messages else "stored in chunks" if where == 2 else "a view of other arrays"
        raise ValueError(
            f"it is {found}, and this reader takes arrays in one piece: write the file again with h5py, each array by "
            "create_dataset(name, data=old[name][()]) without chunks and compression"
        )
    # Nothing times anything is nothing: of an empty array the other axes are bounded, too.
    if length < size or math.prod(max(1, count) for count in shape) > source.size:
        raise ValueError(f"it has {length:,} bytes, which does not fit its shape {shape}: {_AGAIN}")

    def read() -> NDArray[Any]:
        numbers = held.numbers(offset, dtype, shape)
        return from_bfloat16(numbers) if kind == "bfloat16" else numbers

    return read


def _shape(message: bytes) -> tuple[int, ...] | None:
    """Return the shape in a dataspace message, or None for one that is shared or says that there is no array."""
    if not message:
        return None
    version, rank = struct.unpack_from("<BB", message)
    if version not in (1, 2) or rank > 32 or (version == 2 and message[3] == 2):
        return None
    return struct.unpack_from(f"<{rank}Q", message, 8 if version == 1 else 4)


def _number_type(message: bytes, bfloat16: bool) -> str:
    """Return NumPy's name of a datatype, or "bfloat16"; ``bfloat16`` says that the array is marked as that."""
    if not message:
        raise ValueError("its type is shared with others: save the file again with Keras or h5py")
    kind, bits, high, _, size = struct.unpack_from("<4BI", message)
    order = ">" if bits & 1 else "<"
    match kind & 15:
        case 0 if size in (1, 2, 4, 8) and struct.unpack_from("<HH", message, 8) == (0, 8 * size):
            return f"{order}{'i' if bits & 8 else 'u'}{size}"
        case 1 if not bits & 0x40 and high == 8 * size - 1:
            precision, *parts, bias = struct.unpack_from("<2xH4BI", message, 8)
            form = (size, parts[0], parts[1], parts[2], parts[3], bias)
            if precision == 8 * size and form in _FLOATS:
                return f"{order}{_FLOATS[form]}"
            if precision == 16 and form == _BFLOAT16 and order == "<":
                return "bfloat16"
        case 5 if size == 2 and bfloat16:
            return "bfloat16"
    found = f"its type (class {kind & 15}, {size} bytes)"
    raise ValueError(f"{found} is none of float16, float32, float64 and integers: save the weights in float32")


# ---- attributes ----


def _text(file: _File, body: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name and the texts of an attribute, unless it is of another type."""
    version, flags, name_size, type_size, space_size = struct.unpack_from("<BBHHH", body)
    if version not in (1, 2, 3) or (version > 1 and flags & 3):
        return
    position, parts = 9 if version == 3 else 8, []
    for size in (name_size, type_size, space_size):
        parts.append(body[position : position + size])
        position += -(-size // 8) * 8 if version == 1 else size
    shape, data = _shape(parts[2]), body[position:]
    if shape is None:
        return
    kind, bits, _, _, size = struct.unpack_from("<4BI", parts[1])
    count = math.prod(shape)
    fixed, varying = kind & 15 == 3 and size > 0, kind & 15 == 9 and bits & 15 == 1 and size == 16
    if not (fixed or varying):
        return
    if count * size > len(data):
        raise ValueError(f"damaged HDF5, an attribute is longer than its message: {_AGAIN}")
    pieces = [data[index * size : (index + 1) * size] for index in range(count)]
    if varying:
        pieces = [_of_variable_length(file, piece) for piece in pieces]
    texts = tuple(piece.rstrip(b"\0").decode("utf-8", "backslashreplace") for piece in pieces)
    yield parts[0].rstrip(b"\0").decode("utf-8", "backslashreplace"), texts


def _of_variable_length(file: _File, reference: bytes) -> bytes:
    length, address, index = struct.unpack("<IQI", reference)
    return file.in_global_heap(address, index, length) if length else b""
