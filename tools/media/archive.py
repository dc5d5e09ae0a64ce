"""Arrays and a description in one file, NumPy's .npz without compression; read as if a stranger had written it."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tools.media.files import replacing
from tools.media.record import parsed_json

ABOUT = "about"
"""The name of the array that holds the description, JSON in UTF-8."""

MAX_ARRAYS = 5000
MAX_ABOUT = 100_000_000
"""Of more arrays, or a description of more bytes, a file is not ours."""

_PART = 1 << 24
_HEADER = re.compile(
    rb"\{'descr': '(?P<kind><f4|<f8|\|u1|<i4|<i8)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(\d{1,12}, ?|\d{1,12}(?=\))){0,4})\), \} *\n"
)


def write_archive(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file that is there whole or not at all, and still is when the machine loses its power.

    Parameters
    ----------
    about : what JSON can hold.
    arrays : by any names but ``ABOUT``.

    Raises ValueError as ``replacing`` does; the file before it is left then.
    """
    description = np.frombuffer(json.dumps(about).encode("utf-8", "backslashreplace"), np.uint8)
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{ABOUT: description, **plain})


def read_archive(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return what ``write_archive`` wrote: the description, and the arrays by name.

    Nothing in it is unpickled or unpacked, and no array takes more memory than its bytes in the file.

    Parameters
    ----------
    wanted : says which arrays are returned; the others are looked at part by part, for damage.

    Raises ValueError for what cannot be read, is of another kind, or is damaged.
    """
    problem = f"cannot read {str(path)!r}"
    try:
        if not path.is_file():
            raise ValueError(f"{problem}: " + ("it is not a file" if path.exists() else "there is no such file"))
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS or sum(one.file_size for one in members) > path.stat().st_size:
                raise _DamagedError
            arrays = dict[str, NDArray[Any]]()
            for one in members:
                name = one.filename.removesuffix(".npy")
                array = _array(archive, one, name == ABOUT or wanted(name))
                if array is not None:
                    arrays[name] = array
        about = arrays.pop(ABOUT, None)
        if about is None or about.dtype != np.uint8 or about.nbytes > MAX_ABOUT:
            raise _DamagedError
        return parsed_json(about.tobytes().decode("utf-8")), arrays
    except MemoryError:
        raise ValueError(f"{problem}: it takes more memory than there is") from None
    except OSError as error:
        raise ValueError(f"{problem}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, struct.error, _DamagedError, NotImplementedError, RuntimeError, EOFError, UnicodeError):
        raise ValueError(f"{problem}: it is no checkpoint of this program, or is damaged") from None


class _DamagedError(Exception):
    """Something that ``write_archive`` does not write."""


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, is_wanted: bool) -> NDArray[Any] | None:
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise _DamagedError
    with archive.open(member) as file:
        shape, dtype = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if size > member.file_size:
            raise _DamagedError
        array = np.empty(shape, dtype) if is_wanted else None
        content, place = None if array is None else array.reshape(-1).view(np.uint8), 0
        while place < size and (part := file.read(min(size - place, _PART))):
            if content is not None:
                content[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        if place < size or file.read(1):  # with the last byte, the check sum is looked at
            raise _DamagedError
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type from the header that NumPy writes, version 1.0; its own reader takes more than that."""
    if file.read(8) != b"\x93NUMPY\x01\x00":
        raise _DamagedError
    found = _HEADER.fullmatch(file.read(int.from_bytes(file.read(2), "little")))
    if found is None:
        raise _DamagedError
    shape = tuple(int(side) for side in found["shape"].split(b",") if side.strip())
    return shape, np.dtype(found["kind"].decode())
