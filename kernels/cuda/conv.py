"""Convolution in chunks: the patches of some output rows at a time, times the weight as one matrix product.

The counterpart of ``kernels/cpu/conv.py``. A chunk of patches should stay in the card's second-level cache between
the kernel that writes it and the product that reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.branches import copy_columns
from kernels.cuda.gemm import gemm
from kernels.cuda.geometry import chunk_rows
from kernels.cuda.launcher import Array, Launcher
from kernels.geometry import Window, mirrored_window, output_size, reaching, resolved_pads, strips

# Up to this many input channels the gradient's product is formed before it is shifted: see conv_input_gradient.
_FEW_CHANNELS = 16


def conv(
    gpu: Launcher,
    input: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    group: int = 1,
    *,
    relu: bool = False,
) -> Array:
    """Return the convolution (cross-correlation) of ``input`` with ``weight``, plus ``bias``, zero-padded.

    Parameters
    ----------
    input : (H, W, C), C-contiguous, float32 or float16.
    weight : (kernel height, kernel width, C / group, K), of the input's dtype.
    bias : (K,), float32, or None.
    window : kernel size, strides, pads and dilations.
    group : channels are split into this many parts that do not mix.
    relu : apply max(x, 0) to the result.

    Returns
    -------
    (H', W', K).

    Source: ONNX Conv (opset 22).
    """
    height, width, channels = input.shape
    rows, columns = output_size(window, height, width)
    taps, per_group, filters = len(window.taps), channels // group, weight.shape[3]
    matrices = _parts(gpu, weight.reshape(taps * per_group, filters), group)
    output = gpu.empty((rows, columns, filters), input.dtype)
    flat = output.reshape(rows * columns, filters)
    pointwise = taps == 1 and window.strides == (1, 1) and not any(resolved_pads(window, height, width)) and group == 1
    if pointwise:
        gemm(gpu, input.reshape(rows * columns, channels), matrices[0], flat, bias=bias, relu=relu)
        return output
    length = chunk_rows(rows, columns, taps * per_group * input.dtype.itemsize)
    for first, last in strips(rows, length):
        part = flat[first * columns : last * columns]
        for index, matrix in enumerate(matrices):
            # Patches are named nowhere: their memory is free for the next ones.
            if group == 1:
                gemm(gpu, _patches(gpu, input, window, (first, last), 0, channels), matrix, part, bias=bias, relu=relu)
                continue
            kernels = filters // group
            of_bias = None if bias is None else bias[index * kernels : (index + 1) * kernels]
            of_group = gemm(
                gpu,
                _patches(gpu, input, window, (first, last), index * per_group, per_group),
                matrix,
                gpu.empty((len(part), kernels), input.dtype),
                bias=of_bias,
                relu=relu,
            )
            copy_columns(gpu, of_group, part, target_first=index * kernels)
    return output


def conv_input_gradient(
    gpu: Launcher,
    output_gradient: Array,
    weight: Array,
    input_shape: tuple[int, int, int],
    window: Window,
    group: int = 1,
    *,
    flipped: Array | None = None,
) -> Array:
    """Return the gradient with respect to the input: the transpose of the convolution, applied to ``output_gradient``.

    With stride 1 it is itself a convolution, with the weight's taps flipped and its input and output
    channels exchanged. With other strides, or where the input has few channels, each output's gradient is multiplied
    by all taps first, and each input value gathers what the taps that read it give.

    Parameters
    ----------
    output_gradient : (H', W', K), C-contiguous.
    weight, window, group : as in ``conv``.
    input_shape : the input's (H, W, C).
    flipped : ``flip_weight(gpu, weight, group)`` if it is at hand.
    """
    height, width, channels = input_shape
    mirrored = mirrored_window(window, height, width)
    if mirrored is not None and channels > _FEW_CHANNELS * group:
        flipped = flip_weight(gpu, weight, group) if flipped is None else flipped
        return conv(gpu, output_gradient, flipped, None, mirrored, group)
    return _gathered_gradient(gpu, output_gradient, weight, input_shape, window, group)


def flip_weight(gpu: Launcher, weight: Array, group: int = 1) -> Array:
    """Return the weight of the transposed convolution: taps flipped, channels exchanged.

    Parameters
    ----------
    weight : (kernel height, kernel width, C / group, K).

    Returns
    -------
    (kernel height, kernel width, K / group, C), C-contiguous.
    """
    rows, columns, per_group, filters = weight.shape
    flipped = gpu.empty((rows, columns, filters // group, group * per_group), weight.dtype)
    arguments = (weight, flipped, flipped.size, rows * columns, per_group, filters, group)
    gpu.launch_for_each("conv.cu", "flip_weight", flipped.size, arguments, REAL=weight.dtype)
    return flipped


def pack_weight(gpu: Launcher, weight: Array) -> Array:
    """Return a weight as the kernels for tensor cores read it, filter by filter: (K, taps C) from (h, w, C, K)."""
    rows, columns, channels, filters = weight.shape
    # The flipped weight of a convolution with one tap is its transpose.
    flipped = flip_weight(gpu, weight.reshape(1, 1, rows * columns * channels, filters))
    return flipped.reshape(filters, rows * columns * channels)


def conv_scratch_bytes(
    input_shape: tuple[int, int, int],
    weight_shape: tuple[int, int, int, int],
    window: Window,
    group: int,
    itemsize: int,
) -> int:
    """Return about how many bytes ``conv`` and its input gradient need besides their arguments and results.

    Parameters
    ----------
    input_shape, weight_shape, window, group : as in ``conv``.
    itemsize : bytes of a number.
    """
    height, width, channels = input_shape
    rows, columns = output_size(window, height, width)
    taps, per_group, kernels = len(window.taps), channels // group, weight_shape[3] // group
    forward = _chunk_bytes(rows, columns, taps * per_group * itemsize)
    if per_group > _FEW_CHANNELS:
        return max(forward, _chunk_bytes(height, width, taps * kernels * itemsize))
    return max(forward, _chunk_bytes(height, width, taps * per_group * np.dtype(np.float32).itemsize))


def _chunk_bytes(rows: int, columns: int, bytes_a_pixel: int) -> int:
    return chunk_rows(rows, columns, bytes_a_pixel) * columns * bytes_a_pixel


def _parts(gpu: Launcher, matrix: Array, group: int) -> list[Array]:
    """Return the columns of each group as a separate matrix."""
    if group == 1:
        return [matrix]
    inner, columns = matrix.shape
    return [
        copy_columns(
            gpu, matrix, gpu.empty((inner, columns // group), matrix.dtype), source_first=index * (columns // group)
        )
        for index in range(group)
    ]


def _patches(
    gpu: Launcher, input: Array, window: Window, rows: tuple[int, int], first_channel: int, per_group: int
) -> Array:
    """Return the input under the outputs of ``rows``: (outputs, taps * per_group), zeros on padding."""
    height, width, channels = input.shape
    columns = output_size(window, height, width)[1]
    top, left = resolved_pads(window, height, width)[:2]
    patches = gpu.empty(((rows[1] - rows[0]) * columns, len(window.taps) * per_group), input.dtype)
    place = (height, width, channels, columns, rows[0], first_channel, per_group, *_of_window(window), top, left)
    gpu.launch_for_each("conv.cu", "patches", patches.size, (input, patches, patches.size, *place), REAL=input.dtype)
    return patches


def _gathered_gradient(
    gpu: Launcher, output_gradient: Array, weight: Array, input_shape: tuple[int, int, int], window: Window, group: int
) -> Array:
    height, width, channels = input_shape
    rows, columns, filters = output_gradient.shape
    top, left = resolved_pads(window, height, width)[:2]
    taps, per_group = len(window.taps), channels // group
    # (taps * per_group, filters) is the weight as it lies in memory; the product needs its transpose.
    matrices = [_transposed(gpu, part) for part in _parts(gpu, weight.reshape(taps * per_group, filters), group)]
    flat = output_gradient.reshape(rows * columns, filters)
    gradient = gpu.empty(input_shape, output_gradient.dtype)
    length = chunk_rows(height, width, taps * per_group * np.dtype(np.float32).itemsize)
    for bounds in strips(height, length):
        reach = window.extent[0] - 1
        first, last = reaching(-top, window.strides[0], bounds[0] - reach, bounds[1], rows)
        part = flat[first * columns : last * columns]
        for index, matrix in enumerate(matrices):
            count = (bounds[1] - bounds[0]) * width * per_group
            place = (width, channels, columns, bounds[0], first, last, index * per_group, per_group)
            gpu.launch_for_each(
                "conv.cu",
                "gather_patches",
                count,
                # The products are named nowhere: their memory is free for the next ones.
                (_products(gpu, part, matrix, index), gradient, count, *place, *_of_window(window), top, left),
                REAL=gradient.dtype,
            )
    return gradient


def _products(gpu: Launcher, output_gradient: Array, matrix: Array, index: int) -> Array:
    """Return what some outputs' gradient gives at each tap, (outputs, taps * per_group).

    Parameters
    ----------
    output_gradient : (outputs, filters).
    matrix : the weight of a group, (filters / group, taps * per_group).
    index : of the group.
    """
    outputs, kernels = len(output_gradient), len(matrix)
    # One row at least, for a strip that no output reads.
    products = gpu.empty((max(outputs, 1), matrix.shape[1]), np.float32)
    if not outputs:
        return products
    if output_gradient.shape[1] > kernels:
        of_group = gpu.empty((outputs, kernels), output_gradient.dtype)
        output_gradient = copy_columns(gpu, output_gradient, of_group, source_first=index * kernels)
    return gemm(gpu, output_gradient, matrix, products)


def _transposed(gpu: Launcher, matrix: Array) -> Array:
    """Return the transpose of a matrix: the flipped weight of a convolution with one tap."""
    rows, columns = matrix.shape
    return flip_weight(gpu, matrix.reshape(1, 1, rows, columns)).reshape(columns, rows)


def _of_window(window: Window) -> tuple[Any, ...]:
    return (*window.kernel, *window.strides, *window.dilations)
