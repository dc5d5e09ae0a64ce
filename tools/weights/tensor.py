"""An array in a weight file: its name and shape are known at once, its numbers are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Tensor:
    """One array of a weight file.

    Parameters
    ----------
    name : as the file calls it.
    shape : of the array, in the file's order of axes.
    read : returns the numbers, C-contiguous, in a NumPy type of this machine's byte order (bfloat16 as float32). Raises
        ValueError where the file does not hold them.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
