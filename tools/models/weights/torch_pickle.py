"""The part of pickle that a state_dict is written in, read without Python's own: there is nothing here to be executed.

A pickle is a program for a machine with a stack. Of its instructions this one knows those that build dictionaries,
lists, tuples, texts and numbers, and of what else a pickle may call by its name the few functions below.

Sources: CPython's Lib/pickletools.py; torch/_utils.py and torch/serialization.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tools.models.weights.kind import shown

# Each makes at most some 100 bytes; a tensor takes about thirty, a state_dict of VGG-19 1,600.
_MAX_INSTRUCTIONS = 300_000

_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_FUNCTIONS = ("collections.OrderedDict", "torch.Size", *_TENSORS, *_PARAMETERS)
_OTHER_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")  # quantized, sparse, of newer types
_STORAGE = re.compile(r"torch\.(?:cuda\.)?(\w+)Storage")

_CONSTANTS: dict[bytes, Any] = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TEXTS = {b"U": "<B", b"T": "<I", b"X": "<I", b"\x8c": "<B"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": "<B", b"r": "<I"}
_GETS = {b"h": "<B", b"j": "<I"}


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file.

    Parameters
    ----------
    kind : PyTorch's name of their type, such as "Float".
    key : the name of the row; several may be views of one.
    count : how many numbers the row has.
    start : where in the row this view of it begins.
    """

    kind: str
    key: str
    count: int
    start: int


@dataclass(frozen=True)
class Strided:
    """A tensor: numbers of a storage at regular distances, all counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """What a pickle calls by its name."""

    name: str


@dataclass(frozen=True)
class Unpickled:
    """What ``unpickle`` returns.

    Parameters
    ----------
    value : of dictionaries, lists, tuples, texts, numbers, ``Storage`` and ``Strided``.
    storages : all that the pickle names, by key.
    end : where the next pickle begins.
    """

    value: Any
    storages: dict[str, Storage]
    end: int


def unpickle(data: bytes, position: int = 0) -> Unpickled:
    """Return the value of the pickle that begins at a position.

    Raises ValueError when it is damaged, or wants to call anything that is not needed for tensors.
    """
    try:
        return _Machine(data, position).run()
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        # A stack without what the instruction takes, a value of another kind, the end of the data: all mean the same.
        raise ValueError("its pickle is damaged or cut short; download the file again") from None


class _RefusedError(Exception):
    """The pickle is sound, and more than a state_dict."""


class _Machine:
    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Storage] = {}

    def run(self) -> Unpickled:
        for _ in range(_MAX_INSTRUCTIONS):
            code = self._bytes(1)
            if code == b".":
                return Unpickled(self._stack.pop(), self._storages, self._position)
            self._step(code)
        raise _RefusedError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions; save the state_dict alone")

    def _step(self, code: bytes) -> None:
        stack = self._stack
        if code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _NUMBERS:
            stack.append(self._number(_NUMBERS[code]))
        elif code in _TEXTS:
            stack.append(self._text(self._number(_TEXTS[code])))
        elif code in _PUTS:
            self._memo[self._number(_PUTS[code])] = stack[-1]
        elif code in _GETS:
            stack.append(self._memo[self._number(_GETS[code])])
        elif code in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[code])]
            stack.append(tuple(reversed(items)))
        elif code == b"\x80":  # PROTO
            self._number("<B")
        elif code == b"\x95":  # FRAME
            self._number("<Q")
        elif code == b"\x94":  # MEMOIZE
            self._memo[len(self._memo)] = stack[-1]
        elif code == b"\x8a":  # LONG1
            stack.append(int.from_bytes(self._bytes(self._number("<B")), "little", signed=True))
        elif code in (b"C", b"B"):  # SHORT_BINBYTES, BINBYTES
            stack.append(self._bytes(self._number("<B" if code == b"C" else "<I")))
        elif code == b"(":  # MARK
            self._marked.append(stack)
            self._stack = []
        elif code == b"t":  # TUPLE
            self._unmark().append(tuple(stack))
        elif code == b"]":  # EMPTY_LIST
            stack.append([])
        elif code == b"a":  # APPEND
            entry = stack.pop()
            _is(list, stack[-1]).append(entry)
        elif code == b"e":  # APPENDS
            _is(list, self._unmark()[-1]).extend(stack)
        elif code == b"}":  # EMPTY_DICT
            stack.append({})
        elif code == b"s":  # SETITEM
            pair = stack.pop(-2), stack.pop()
            _set(stack[-1], [pair])
        elif code == b"u":  # SETITEMS
            _set(self._unmark()[-1], zip(stack[::2], stack[1::2], strict=True))
        elif code == b"c":  # GLOBAL
            module, name = self._line(), self._line()
            stack.append(_allowed(f"{module}.{name}"))
        elif code == b"\x93":  # STACK_GLOBAL
            name, module = stack.pop(), stack.pop()
            stack.append(_allowed(f"{_is(str, module)}.{_is(str, name)}"))
        elif code == b"Q":  # BINPERSID
            stack.append(self._storage(stack.pop()))
        elif code == b"R":  # REDUCE
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments))
        elif code == b"b":  # BUILD: what a module's state_dict has besides its tensors
            stack.pop()
            _is(dict, stack[-1])
        else:
            raise _RefusedError(f"its pickle has the instruction {code!r}, which no state_dict needs; save that alone")

    def _bytes(self, size: int) -> bytes:
        begin, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise IndexError
        return self._data[begin : self._position]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _text(self, size: int) -> str:
        return self._bytes(size).decode(errors="backslashreplace")

    def _line(self) -> str:
        return self._text(self._data.index(b"\n", self._position) + 1 - self._position)[:-1]

    def _unmark(self) -> list[Any]:
        """Return the stack below the last mark, which becomes the present one again."""
        self._stack = self._marked.pop()
        return self._stack

    def _storage(self, identity: Any) -> Storage:
        """Return the storage of a persistent id: ('storage', type, key, device, count[, view])."""
        name, kind, key, _, count, *views = _is(tuple, identity)
        found = _STORAGE.fullmatch(_is(_Global, kind).name)
        if name != "storage" or found is None:
            raise TypeError
        # A view of another storage, as old files have it: its key, where in the other it begins, its size.
        start = _whole(views[0][1]) if views and views[0] is not None else 0
        storage = Storage(found[1], _is(str, key), _whole(count), start)
        known = self._storages.setdefault(storage.key, storage)
        if (known.kind, known.count) != (storage.kind, storage.count):
            raise TypeError
        return storage


def _called(function: Any, arguments: Any) -> Any:
    """Return what one of the functions that a state_dict needs gives."""
    name = _is(_Global, function).name
    _is(tuple, arguments)
    if name in _TENSORS:
        storage, offset, shape, stride, *others = arguments
        if others[2:3] and others[2]:
            raise _RefusedError("has a tensor whose sign is still to be changed; save its resolve_neg() instead")
        return Strided(_is(Storage, storage), _whole(offset), _wholes(shape), _wholes(stride))
    if name in _PARAMETERS:
        return _is(Strided, arguments[0])
    if name == "torch.Size":
        return _is(tuple, arguments[0])
    if name != "collections.OrderedDict":
        raise TypeError
    found: dict[Any, Any] = {}
    # Python 2 gives the entries right here, Python 3 adds them afterward.
    for pairs in arguments:
        _set(found, (_is(list | tuple, pair) for pair in _is(list, pairs)))
    return found


def _allowed(name: str) -> _Global:
    if name.startswith(_OTHER_TENSORS) and name not in _FUNCTIONS:
        raise _RefusedError(f"has a tensor that is no plain array, made by {shown(name)}; save it as float32")
    if name not in _FUNCTIONS and not _STORAGE.fullmatch(name):
        raise _RefusedError(f"wants to run {shown(name)}, which is not a tensor; save its state_dict instead")
    return _Global(name)


def _set(target: Any, pairs: Iterable[Any]) -> None:
    _is(dict, target)
    for key, value in pairs:
        # Tuples too could be keys, but the hash of one that is nested deeply overflows the stack of C.
        if not isinstance(key, str | int | float | None):
            raise _RefusedError(
                "has a dictionary with a key that is neither text nor number; save its state_dict alone"
            )
        target[key] = value


def _wholes(values: Any) -> tuple[int, ...]:
    return tuple(_whole(value) for value in _is(tuple, values))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise TypeError
    return value


def _is(kind: Any, value: Any) -> Any:
    """Return a value, which must be of a kind."""
    if not isinstance(value, kind):
        raise TypeError
    return value
