"""Values of a file that are a value of the engine seen another way: axes in another order, channels chosen.

Exporters turn colors and move axes in a dozen spellings. What an operator does with them is found out by running it on
numbers that say where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from engine.ops import Array

# Sides of the arrays that operators are tried on where the file leaves them open. Primes are not met by chance among a
# file's shapes, and what is cut off shows on one that is long.
_OPEN_SIDES = ((101, 103), (9973, 7), (7, 9973))
_LARGEST_SIDE = 4096
MOST_CHANNELS = 64

# In place of a scale: values that were rounded by one found from themselves, and products of these with weights.
DYNAMIC, PRODUCT = b"dynamic", b"product"


@dataclass(frozen=True)
class Channel:
    """``scale`` times a channel of the image plus ``shift``."""

    source: int
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class View:
    """What a value of the file is of a value of the engine.

    Parameters
    ----------
    name : of the engine's value.
    axes : what the file's axes are: H, W and C of the value, N for any of size 1. Of a single channel there is no C.
    channels : of the image; None where all are there as they are.
    pads : zeros around it: top, left, bottom, right.
    whole : whether it has whole numbers.
    not_negative : whether none of its numbers can be below 0.
    quantized : scale and zero point where it stands for numbers of 8 bits.
    """

    name: str
    axes: str = "NCHW"
    channels: tuple[Channel, ...] | None = None
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    whole: bool = False
    not_negative: bool = False
    quantized: tuple[bytes, bytes] | None = None


def rearranged(
    views: Sequence[View], run: Callable[[tuple[Array, ...]], Sequence[Array]], sides: tuple[int, int]
) -> list[View] | None:
    """Return what an operator makes of views of the image's channels, or None where that is no such view.

    Parameters
    ----------
    views : its inputs, with ``channels``.
    run : the operator on arrays of the views' axes.
    sides : the image's height and width, 0 where the file leaves them open.
    """
    known = [view.channels for view in views if view.channels is not None]
    channels = tuple(chain.from_iterable(known))
    if len(known) < len(views) or len(channels) > MOST_CHANNELS:
        return None
    offsets = [sum(map(len, known[:at])) for at in range(len(known))]
    results = []
    for tried in dict.fromkeys(
        tuple(side if 1 < side <= _LARGEST_SIDE else other for side, other in zip(sides, open_sides, strict=True))
        for open_sides in _OPEN_SIDES
    ):
        probes = tuple(
            _probe(view.axes, range(offset, offset + len(of_view)), *tried)
            for view, of_view, offset in zip(views, known, offsets, strict=True)
        )
        results.append([_read(output, *tried) for output in run(probes)])
    found = []
    for read, *others in zip(*results, strict=True):
        if read is None or any(other != read for other in others):
            return None
        axes, places = read
        found.append(replace(views[0], axes=axes, channels=tuple(channels[place] for place in places)))
    return found


def _probe(axes: str, places: Sequence[int], height: int, width: int) -> Array:
    """Return an array whose numbers say from which row, column and channel they come."""
    of_axis = {
        "H": np.arange(height) * width * MOST_CHANNELS,
        "W": np.arange(width) * MOST_CHANNELS,
        "C": np.asarray(places),
        "N": np.zeros(1, np.int64),
    }
    total = np.zeros([1] * len(axes), np.int64) if "C" in axes else np.full([1] * len(axes), places[0], np.int64)
    for at, letter in enumerate(axes):
        total = total + of_axis[letter].reshape([-1 if axis == at else 1 for axis in range(len(axes))])
    return total


def _read(output: Array, height: int, width: int) -> tuple[str, list[int]] | None:
    """Return axes and channels of what was made of probes; None where rows or columns are not all there, in order."""
    if not output.size or output.size > MOST_CHANNELS * height * width:
        return None
    axes, places = "", [int(output.flat[0]) % MOST_CHANNELS]
    for at in range(output.ndim):
        along = output[tuple(slice(None) if axis == at else 0 for axis in range(output.ndim))]
        position, channel = np.divmod(along, MOST_CHANNELS)
        row, column = np.divmod(position, width)
        if len(along) == 1:
            axes += "N"
        elif len(along) == height and not column.any() and np.array_equal(row, np.arange(height)):
            axes += "H"
        elif len(along) == width and not row.any() and np.array_equal(column, np.arange(width)):
            axes += "W"
        elif not position.any():
            axes += "C"
            places = [int(one) for one in channel]
        else:
            return None
    if any(axes.count(letter) != 1 for letter in "HW") or axes.count("C") > 1:
        return None
    return (axes, places) if np.array_equal(output, _probe(axes, places, height, width)) else None
