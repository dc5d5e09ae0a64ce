"""A stretch of a file, or bytes in memory that stand for one, from which numbers are read when they are asked for."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class ByteRange:
    """A stretch of a file.

    Parameters
    ----------
    path : the file.
    start, size : where in it the stretch lies, in bytes.
    content : what is read in place of the file, all of it, such as a member that was compressed.
    """

    path: Path
    start: int
    size: int
    content: bytes | None = None

    def opened(self) -> io.BufferedReader | io.BytesIO:
        """Return an open file; positions in it begin at 0, not at ``start``. Raises OSError."""
        return self.path.open("rb") if self.content is None else io.BytesIO(self.content)

    def numbers(self, offset: int, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an array of this machine's byte order, C-contiguous and writable.

        Parameters
        ----------
        offset : from ``start``.
        dtype : as the file has it.
        shape : in C order.

        Raises ValueError when the array does not lie in the stretch or the file was cut off meanwhile, OSError.
        """
        kind, count = np.dtype(dtype), math.prod(shape)
        if offset < 0 or offset + count * kind.itemsize > self.size:
            raise ValueError(f"{self.path}: an array of shape {shape} lies outside the file: it is damaged or cut off")
        with self.opened() as file:
            file.seek(self.start + offset)
            return read_numbers(self.path, file.readinto, kind, shape)


def whole_file(path: Path) -> ByteRange:
    """Return all of a file. Raises OSError."""
    with path.open("rb") as file:
        return ByteRange(path, 0, file.seek(0, os.SEEK_END))


def read_numbers(
    path: Path, readinto: Callable[[memoryview], int], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return an array of this machine's byte order that a function fills in one or several calls.

    Raises ValueError when it gives less than the array needs, or when there is no memory for that.
    """
    try:
        array = np.empty(shape, dtype)
        left = array.reshape(-1).view(np.uint8).data
        while left:
            count = readinto(left)
            if not count:
                raise ValueError(f"{path}: the file ends within an array: it has been cut off")
            left = left[count:]
        return array.astype(dtype.newbyteorder("="), copy=False)
    except MemoryError:
        raise ValueError(f"{path}: there is not enough memory for an array of shape {shape}") from None
