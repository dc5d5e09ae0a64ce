"""An array in a weight file: its name and shape are known at once, its numbers are read when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
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


def from_bfloat16(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 numbers, given as uint16, in float32."""
    return (numbers.astype(np.uint32) << 16).view(np.float32)


def natural_order(name: str) -> list[list[tuple[str, int, str]]]:
    """Return what sorts names with numbers as numbers, folder by folder: conv2d before conv2d_2 before conv2d_10."""
    parts = (re.findall(r"([^0-9]*)([0-9]*)", part) for part in name.split("/"))
    # By their length instead of by int(): a hostile name may have more digits than that takes.
    return [[(text, len(digits.lstrip("0")), digits.lstrip("0")) for text, digits in part] for part in parts]
