"""Padding by zeros, by reflection, or by the edges, and its input gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import padded_sources

Array = NDArray[Any]


def pad(threads: Threads, input: Array, pads: tuple[int, int, int, int], mode: str) -> Array:
    """Return the input with rows and columns around it.

    Parameters
    ----------
    input : (H, W, C).
    pads : top, left, bottom, right.
    mode : ``"constant"`` for zeros, ``"reflect"`` or ``"edge"``.

    Source: ONNX Pad (opset 24).
    """
    rows, columns = _sources(input.shape, pads, mode)
    output = threads.output((len(rows), len(columns), input.shape[2]), input.dtype)
    inside = columns >= 0

    def row(y: int) -> None:
        output[y] = 0
        if rows[y] >= 0:
            output[y, inside] = input[rows[y], columns[inside]]

    threads.map(row, range(len(rows)))
    return output


def pad_input_gradient(
    threads: Threads,
    output_gradient: Array,
    input_shape: tuple[int, int, int],
    pads: tuple[int, int, int, int],
    mode: str,
) -> Array:
    """Return the gradient with respect to the input: the sum over all places that a value was taken to.

    Parameters
    ----------
    output_gradient : (H + top + bottom, W + left + right, C).
    input_shape : (H, W, C).
    pads, mode : as in ``pad``.
    """
    rows, columns = _sources(input_shape, pads, mode)
    _, left, _, right = pads
    gradient = threads.output(input_shape, output_gradient.dtype)
    outer = [*range(left), *range(len(columns) - right, len(columns))]

    def row(y: int) -> None:
        gradient[y] = 0
        # One after the other, so that the sums are the same at any number of threads.
        for from_row in np.flatnonzero(rows == y):
            taken = output_gradient[from_row]
            gradient[y] += taken[left : left + input_shape[1]]
            for x in outer:
                if columns[x] >= 0:
                    gradient[y, columns[x]] += taken[x]

    threads.map(row, range(input_shape[0]))
    return gradient


def _sources(shape: tuple[int, ...], pads: tuple[int, int, int, int], mode: str) -> tuple[Array, Array]:
    top, left, bottom, right = pads
    return (
        np.array(padded_sources(shape[0], top, bottom, mode)),
        np.array(padded_sources(shape[1], left, right, mode)),
    )
