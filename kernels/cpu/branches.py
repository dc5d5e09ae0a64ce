"""Add, concatenate and split branches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from numpy.typing import NDArray

from kernels.cpu.threads import Threads

Array = NDArray[Any]


def add(threads: Threads, inputs: Sequence[Array]) -> Array:
    """Return the sum of arrays of one shape and dtype, added in their order, as a new array."""
    output = threads.output(inputs[0].shape, inputs[0].dtype)

    def row(y: int) -> None:
        output[y] = inputs[0][y]
        for other in inputs[1:]:
            output[y] += other[y]

    threads.map(row, range(len(output)))
    return output


def add_to(target: Array, other: Array) -> None:
    """Add ``other`` to ``target`` in place."""
    target += other


def concat(threads: Threads, inputs: Sequence[Array]) -> Array:
    """Return the channels of all ``inputs``, (H, W, C) each, one behind the other."""
    height, width, _ = inputs[0].shape
    channels = [one.shape[2] for one in inputs]
    output = threads.output((height, width, sum(channels)), inputs[0].dtype)
    parts = _parts(channels)

    def row(y: int) -> None:
        for one, part in zip(inputs, parts, strict=True):
            output[y, :, part] = one[y]

    threads.map(row, range(len(output)))
    return output


def split(input: Array, channels: Sequence[int]) -> list[Array]:
    """Return copies of the first ``channels[0]`` channels of ``input``, of the next ``channels[1]``, and so on."""
    return [input[:, :, part].copy() for part in _parts(channels)]


def _parts(channels: Sequence[int]) -> list[slice]:
    """Return where each input's channels stand among all."""
    return [slice(end - count, end) for count, end in zip(channels, accumulate(channels), strict=True)]
