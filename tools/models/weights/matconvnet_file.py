"""Weights that MatConvNet has written: .mat files of MATLAB's version 5, compressed or not.

SciPy reads such files, too, but whole and with the fully connected layers, and a damaged one can end its process. Here
the elements are walked in their order. Of the large arrays only the place is noted: in a compressed file that is the
state of the decompressor there. Source: MAT-File Format, MathWorks, chapter 1; matlab/simplenn/vl_simplenn_tidy.m of
MatConvNet.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.models.weights.byte_range import read_numbers
from tools.models.weights.tensor import Tensor

_WANTED = ("layers", "meta", "normalization", "net")
"""The variables in which MatConvNet's versions keep a network; "net" is that of a training."""

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How an element's numbers are stored, by its type."""

_UTF8, _UTF16, _MATRIX, _COMPRESSED = 16, 17, 14, 15

_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""What an array's numbers are, by its class; whole ones may be stored in a smaller type."""

# A VGG has some 5,000 elements with the names of its 1,000 classes, nested five deep, and weights hardly shrink.
_MOST_ELEMENTS = 20_000
_DEEPEST = 8
_LONGEST_TEXT = 2**16
_SMALL = 2**16
_MOST_KEPT = 2**26
_MOST_COMPRESSED = 16

_PIECE = 2**18
_PACKED_PIECE = 2**14  # what of it is not used yet goes along with each state of the decompressor
_AGAIN = "fetch the file again"


@dataclass(frozen=True)
class _Array:
    """Numbers in the file: ``read`` returns them in MATLAB's order of axes."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


_Value = _Array | str | list[Any] | dict[str, Any] | None
"""An array, a text, a cell array in MATLAB's order, a struct, or None for what no network needs."""


def read_matconvnet(path: Path) -> dict[str, Tensor]:
    """Return the weights in a MatConvNet file, "conv1_1/0" (weight), "conv1_1/1" (bias) and so on, in the file's order.

    Weights are (height, width, in, out). "normalization/averageImage" is the average image or color where there is one.

    Parameters
    ----------
    path : the .mat file of a simplenn network, of any version of MatConvNet.

    Raises ValueError when it is damaged or of a kind that is not read, OSError. Source: MAT-File Format, MathWorks, and
    vl_simplenn_tidy.m of MatConvNet.
    """
    with path.open("rb") as file:
        try:
            return _network(_variables(path, file))
        except zlib.error:
            raise ValueError(f"{path}: its compressed data are damaged: {_AGAIN}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


# ---- the network ----


def _network(variables: Mapping[str, _Value]) -> dict[str, Tensor]:
    net = variables.get("net")
    found = {**variables, **(net if isinstance(net, dict) else {})}
    layers = found.get("layers")
    if "params" in found:
        raise ValueError("it is a DagNN (params beside layers), expected a simplenn network, such as VGG's own")
    if not isinstance(layers, list):
        names = ", ".join(map(repr, list(variables)[:10])) or "none"
        raise ValueError(f"it has no cell array 'layers', its variables are {names}: this is no network of MatConvNet")
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(layers, 1):
        if isinstance(layer, dict):
            name = layer.get("name") if isinstance(layer.get("name"), str) else None
            for number, array in enumerate(_weights(layer)):
                if not isinstance(array, _Array) or 0 in array.shape:
                    continue
                tensor = Tensor(f"{name or f'layer{index}'}/{number}", array.shape, array.read)
                if tensor.name in tensors:
                    raise ValueError(f"it has two layers called {name!r}: save it again with one of them")
                tensors[tensor.name] = tensor
    if not tensors:
        raise ValueError("none of its layers has weights: give the file of the trained network")
    for part in (found, found.get("meta")):
        normalization = part.get("normalization") if isinstance(part, dict) else None
        image = normalization.get("averageImage") if isinstance(normalization, dict) else None
        if isinstance(image, _Array) and image.shape and 0 not in image.shape:
            tensors["normalization/averageImage"] = Tensor("normalization/averageImage", image.shape, image.read)
    return tensors


def _weights(layer: Mapping[str, _Value]) -> Sequence[_Value]:
    """Return a layer's arrays: those in ``weights``, or ``filters`` and ``biases`` of the oldest files."""
    weights = layer.get("weights")
    return weights if isinstance(weights, list) and weights else [layer.get("filters"), layer.get("biases")]


# ---- a stretch of the file, as it is or inflated ----


class _Stream:
    """Bytes one after another.

    Parameters
    ----------
    file : stands at the first.
    end : where the stretch ends in the file.
    inflate : what makes the bytes out of those in the file, None for the same.
    """

    def __init__(self, file: io.BufferedReader, end: int, inflate: Any = None) -> None:
        self._file, self._end, self._inflate = file, end, inflate
        self.position = 0

    def some(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        size = min(size, _PIECE)
        if self._inflate is None:
            found = self._file.read(min(size, self._end - self._file.tell()))
        else:
            found = b""
            while size and not found and not self._inflate.eof:
                left = self._inflate.unconsumed_tail or self._file.read(self._packed_left())
                found = self._inflate.decompress(left, size)
                if not left:
                    break
        self.position += len(found)
        return found

    def _packed_left(self) -> int:
        return min(_PACKED_PIECE, self._end - self._file.tell())

    def take(self, size: int) -> bytes:
        """Return ``size`` bytes, not many."""
        found = bytearray()
        while len(found) < size:
            piece = self.some(size - len(found))
            if not piece:
                raise ValueError(f"an element ends too early, the file was cut off or is damaged: {_AGAIN}")
            found += piece
        return bytes(found)

    def skip_to(self, position: int) -> None:
        """Go on at a position unless it has been passed."""
        if self._inflate is None:
            place = self._file.tell()
            size = max(0, min(position - self.position, self._end - place))
            self._file.seek(place + size)
            self.position += size
        while self._inflate is not None and self.position < position:
            self.take(min(position - self.position, _PIECE))

    def reopening(self, path: Path) -> Callable[[], _Stream]:
        """Return what opens the file again at this place."""
        start, end = self._file.tell(), self._end
        state = None if self._inflate is None else self._inflate.copy()

        def opened() -> _Stream:
            file = path.open("rb")
            file.seek(start)
            return _Stream(file, end, None if state is None else state.copy())

        return opened

    def close(self) -> None:
        self._file.close()


def _variables(path: Path, file: io.BufferedReader) -> dict[str, _Value]:
    """Return the variables of a file, those that no network needs as None."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(128)
    if head.startswith(b"MATLAB 7.3"):
        raise ValueError("it is a .mat file of version 7.3: load it in MATLAB and save it with the option '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if order is None or int.from_bytes(head[124:126], "little" if order == "<" else "big") != 0x0100:
        raise ValueError("it is no .mat file of MATLAB's version 5: save it in MATLAB with the option '-v7'")
    reader = _Reader(path, order)
    variables: dict[str, _Value] = {}
    position = 128
    while position + 8 <= size:
        file.seek(position)
        kind, length = np.frombuffer(file.read(8), f"{order}u4").tolist()
        start, position = position + 8, position + 8 + length
        if position > size:
            raise ValueError(f"an element ends at byte {position:,}, the file at {size:,}: it was cut off, {_AGAIN}")
        if kind == _COMPRESSED:
            stream = _Stream(file, position, zlib.decompressobj())
            kind, length = np.frombuffer(stream.take(8), f"{order}u4").tolist()
            if length > _MOST_COMPRESSED * (position - start) + 2**20:
                raise ValueError(
                    f"it would grow from {position - start:,} to {length:,} bytes, more than weights do: "
                    "if you trust it, load it in MATLAB and save it with the option '-v6'"
                )
        else:
            stream = _Stream(file, position)
        if kind != _MATRIX:
            raise ValueError(f"at byte {start - 8:,} there is no variable, but an element of type {kind}: {_AGAIN}")
        name, value = reader.variable(stream, length)
        if value is not None or name not in variables:
            variables[name] = value
    return variables


class _Reader:
    """What makes values out of a file's elements; bounds how many there are in all.

    Parameters
    ----------
    path : the file.
    order : of its bytes, "<" or ">".
    """

    def __init__(self, path: Path, order: str) -> None:
        self._path, self._order = path, order
        self._elements, self._kept = _MOST_ELEMENTS, _MOST_KEPT

    def variable(self, stream: _Stream, size: int) -> tuple[str, _Value]:
        """Return the name of a variable and its value, None unless it is one that a network needs."""
        self._count()
        end = stream.position + size
        kind, shape, name = self._head(stream, end)
        if name not in _WANTED:
            return name, None
        value = self._contents(stream, end, kind, shape, 0)
        stream.skip_to(end)
        if stream.some(1):
            raise ValueError(f"there are bytes behind the variable {name!r}: {_AGAIN}")
        return name, value

    def _matrix(self, stream: _Stream, end: int, depth: int) -> _Value:
        """Return the value of the array that follows, as an element of another that ends at ``end``."""
        self._count()
        kind, size, padding = self._tag(stream, end)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} stands in place of an array: {_AGAIN}")
        value, inner = None, stream.position + size
        if size and depth < _DEEPEST:
            found, shape, _ = self._head(stream, inner)
            value = self._contents(stream, inner, found, shape, depth)
        stream.skip_to(min(inner + padding, end))
        return value

    def _head(self, stream: _Stream, end: int) -> tuple[int, tuple[int, ...], str]:
        """Return class, shape and name of an array; the class is 0 for what no network has."""
        flags = self._integers(stream, end, 8)
        sizes = self._integers(stream, end, 4 * 32)
        name = self._bytes(stream, end, 1024).decode("utf-8", "backslashreplace")
        if len(flags) != 2 or min(sizes, default=0) < 0:
            raise ValueError(f"the head of an array is damaged: {_AGAIN}")
        # Complex, sparse and global arrays, functions and objects: no network has them.
        return 0 if flags[0] & 0x0800 else flags[0] & 0xFF, tuple(sizes), name

    def _contents(self, stream: _Stream, end: int, kind: int, shape: tuple[int, ...], depth: int) -> _Value:
        count = math.prod(shape)
        if kind in _NUMBERS:
            return self._numbers(stream, end, np.dtype(_NUMBERS[kind]), shape)
        if kind == _CHAR:
            return self._text(stream, end)
        if kind == _CELL:
            self._check_count(stream, end, count)
            return [self._matrix(stream, end, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            longest = self._integers(stream, end, 4)
            data = self._bytes(stream, end, _LONGEST_TEXT)
            if not data:
                return {}
            if len(longest) != 1 or longest[0] < 1:
                raise ValueError(f"the names of a struct's fields are damaged: {_AGAIN}")
            names = list(_names(data, longest[0]))
            self._check_count(stream, end, count * len(names))
            structs = [{name: self._matrix(stream, end, depth + 1) for name in names} for _ in range(count)]
            return structs[0] if count == 1 else structs
        return None

    def _numbers(self, stream: _Stream, end: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Value:
        kind, size, padding = self._tag(stream, end)
        if kind not in _STORED:
            raise ValueError(f"an element of type {kind} stands in place of numbers: {_AGAIN}")
        stored = np.dtype(self._order + _STORED[kind])
        if stored.kind == "f" and (dtype.kind != "f" or stored.itemsize > dtype.itemsize):
            raise ValueError(f"numbers are stored as {stored} and should be {dtype}: {_AGAIN}")
        if size != math.prod(shape) * stored.itemsize or math.prod(max(1, one) for one in shape) > 2**32:
            raise ValueError(f"an array of shape {shape} has {size:,} bytes of {stored}: {_AGAIN}")
        self._kept -= max(size, 1024) if size < _SMALL else _SMALL
        if self._kept < 0:
            raise ValueError("it has far more arrays than a network of VGG's kind")
        start = stream.position
        content = stream.take(size) if size < _SMALL else None
        opened = None if content is not None else stream.reopening(self._path)
        stream.skip_to(min(start + size + padding, end))
        path = self._path

        def read() -> NDArray[Any]:
            if opened is None:
                numbers = np.frombuffer(content or b"", stored).reshape(shape[::-1])
            else:
                again = opened()
                try:
                    numbers = read_numbers(path, lambda view: _fill(view, again), stored, shape[::-1])
                except zlib.error:
                    raise ValueError(f"{path}: its compressed data have changed since it was opened") from None
                finally:
                    again.close()
            with np.errstate(all="ignore"):  # a damaged number may be a NaN that signals
                return np.array(numbers.T, dtype, order="C")

        return _Array(shape, read)

    def _text(self, stream: _Stream, end: int) -> str | None:
        kind, size, padding = self._tag(stream, end)
        if size > _LONGEST_TEXT:
            return None  # the rest of the array is skipped
        data = stream.take(size)
        stream.skip_to(min(stream.position + padding, end))
        wide = kind in (4, _UTF16)
        encoding = ("utf-16-le" if self._order == "<" else "utf-16-be") if wide else "utf-8"
        return data.decode(encoding, "replace" if wide else "backslashreplace")

    def _bytes(self, stream: _Stream, end: int, most: int) -> bytes:
        """Return what is in an element that has at most so many bytes."""
        kind, size, padding = self._tag(stream, end)
        if size > most:
            raise ValueError(f"an element of type {kind} has {size:,} bytes, expected at most {most:,}: {_AGAIN}")
        data = stream.take(size)
        stream.skip_to(min(stream.position + padding, end))
        return data

    def _integers(self, stream: _Stream, end: int, most: int) -> list[int]:
        """Return what is in an element of int32 that has at most so many bytes."""
        data = self._bytes(stream, end, most)
        if len(data) % 4:
            raise ValueError(f"an element has {len(data)} bytes where whole numbers of four are expected: {_AGAIN}")
        return [int(value) for value in np.frombuffer(data, f"{self._order}i4")]

    def _tag(self, stream: _Stream, end: int) -> tuple[int, int, int]:
        """Return an element's type, how many bytes it has and how many follow to fill up eight."""
        if stream.position + 8 > end:
            raise ValueError(f"an array ends within one of its parts: {_AGAIN}")
        kind, size = np.frombuffer(stream.take(4), f"{self._order}u4").item(), 0
        if kind >> 16:  # up to four bytes, in the place of the size
            return kind & 0xFFFF, min(kind >> 16, 4), 4 - min(kind >> 16, 4)
        size = np.frombuffer(stream.take(4), f"{self._order}u4").item()
        if stream.position + size > end:
            raise ValueError(f"an element is longer than the array that it is part of: {_AGAIN}")
        return kind, size, -size % 8

    def _check_count(self, stream: _Stream, end: int, count: int) -> None:
        if count > (end - stream.position) // 8:
            raise ValueError(f"it has {count:,} arrays where there is no place for them: {_AGAIN}")

    def _count(self) -> None:
        self._elements -= 1
        if self._elements < 0:
            raise ValueError(f"it has more than {_MOST_ELEMENTS:,} arrays: this is no network of VGG's kind")


def _names(data: bytes, longest: int) -> Iterator[str]:
    for start in range(0, len(data), longest):
        yield data[start : start + longest].partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _fill(view: memoryview, stream: _Stream) -> int:
    found = stream.some(len(view))
    view[: len(found)] = found
    return len(found)
