"""Convolution in strips: the patches of a few output rows at a time, times the weight as one matrix product.

The patches of a whole layer would be kernel height * kernel width times its input (576 floats a pixel for VGG's
conv1_2); those of a strip stay near the core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.relu import rectify
from kernels.cpu.threads import Threads
from kernels.geometry import Window, blocks, mirrored_window, output_size, reaching, resolved_pads, strips

Array = NDArray[Any]

# A strip has about this many bytes of patches, but at least _STRIP_PIXELS output pixels: then
# reading the weight again pays off.
_STRIP_BYTES = 1 << 21
_STRIP_PIXELS = 512

# Up to this many input channels the gradient's product is formed before it is shifted: see conv_input_gradient.
_FEW_CHANNELS = 16


def conv(
    threads: Threads,
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
    input : (H, W, C), C-contiguous.
    weight : (kernel height, kernel width, C / group, K), of the input's dtype.
    bias : (K,) or None.
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
    top, left = resolved_pads(window, height, width)[:2]
    taps = len(window.taps)
    per_group, kernels = channels // group, weight.shape[3] // group
    matrix = weight.reshape(taps * per_group, -1)
    planes = per_group <= _FEW_CHANNELS and taps > 1
    output = threads.output((rows, columns, weight.shape[3]), input.dtype)

    def strip(block: tuple[int, int, int, int]) -> None:
        y0, y1, x0, x1 = block
        part = output[y0:y1, x0:x1]
        for index in range(group):
            chosen = slice(index * per_group, (index + 1) * per_group)
            patches = _patches(input[:, :, chosen], window, (top, left), block, planes)
            filters = slice(index * kernels, (index + 1) * kernels)
            if group == 1:
                np.matmul(patches, matrix, out=part.reshape(-1, kernels))
            else:
                part[:, :, filters] = (patches @ matrix[:, filters]).reshape(y1 - y0, x1 - x0, kernels)
        if bias is not None:
            part += bias
        if relu:
            rectify(part, part)

    pixels = max(_STRIP_PIXELS, _STRIP_BYTES // (taps * per_group * input.itemsize))
    threads.map(strip, blocks(rows, columns, pixels))
    return output


def conv_input_gradient(
    threads: Threads,
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
    by all taps first and the products are added where the taps lie.

    Parameters
    ----------
    output_gradient : (H', W', K), C-contiguous.
    weight, window, group : as in ``conv``.
    input_shape : the input's (H, W, C).
    flipped : ``flip_weight(weight, group)`` if it is at hand.
    """
    height, width, channels = input_shape
    mirrored = mirrored_window(window, height, width)
    if mirrored is not None and channels // group > _FEW_CHANNELS:
        flipped = flip_weight(weight, group) if flipped is None else flipped
        return conv(threads, output_gradient, flipped, None, mirrored, group)
    return _scattered_gradient(threads, output_gradient, weight, input_shape, window, group)


def flip_weight(weight: Array, group: int = 1) -> Array:
    """Return the weight of the transposed convolution: taps flipped, channels exchanged.

    Parameters
    ----------
    weight : (kernel height, kernel width, C / group, K).

    Returns
    -------
    (kernel height, kernel width, K / group, C), C-contiguous.
    """
    rows, columns, per_group, filters = weight.shape
    parts = weight[::-1, ::-1].reshape(rows, columns, per_group, group, filters // group)
    return np.ascontiguousarray(
        parts.transpose(0, 1, 4, 3, 2).reshape(rows, columns, filters // group, group * per_group)
    )


def conv_scratch_bytes(
    input_shape: tuple[int, int, int],
    weight_shape: tuple[int, int, int, int],
    window: Window,
    group: int,
    itemsize: int,
    threads: int,
) -> int:
    """Return about how many bytes ``conv`` and its input gradient need besides their arguments and results.

    Parameters
    ----------
    input_shape, weight_shape, window, group : as in ``conv``.
    itemsize : bytes of a number.
    threads : at work.
    """
    height, width, channels = input_shape
    rows, columns = output_size(window, height, width)
    taps, per_group, kernels = len(window.taps), channels // group, weight_shape[3] // group
    forward = _strip_bytes(rows * columns, taps * per_group * itemsize)
    backward = _strip_bytes(height * width, taps * (kernels if per_group > _FEW_CHANNELS else per_group) * itemsize)
    return threads * max(forward, backward)


def _strip_bytes(pixels: int, patch_bytes: int) -> int:
    return min(pixels, max(_STRIP_PIXELS, _STRIP_BYTES // patch_bytes)) * patch_bytes


def _scattered_gradient(
    threads: Threads,
    output_gradient: Array,
    weight: Array,
    input_shape: tuple[int, int, int],
    window: Window,
    group: int,
) -> Array:
    height, width, channels = input_shape
    rows, columns, filters = output_gradient.shape
    top, left = resolved_pads(window, height, width)[:2]
    taps, per_group, kernels = len(window.taps), channels // group, filters // group
    matrix = weight.reshape(taps * per_group, filters)
    gradient = threads.output(input_shape, output_gradient.dtype)
    (stride_y, stride_x), (dilation_y, dilation_x) = window.strides, window.dilations

    def strip(bounds: tuple[int, int]) -> None:
        # Input rows are shared out, not output rows, so that no two threads add to the same place.
        reach = window.extent[0] - 1
        first, last = reaching(-top, stride_y, bounds[0] - reach, bounds[1], rows)
        part = output_gradient[first:last]
        for index in range(group):
            of_group = slice(index * kernels, (index + 1) * kernels)
            # A plane for each tap and channel: with few channels, adding planes is faster than adding pixels.
            products = matrix[:, of_group] @ part[:, :, of_group].reshape(-1, kernels).T
            products = products.reshape(taps, per_group, last - first, columns)
            target = np.zeros((per_group, bounds[1] - bounds[0], width), gradient.dtype)
            for tap, (ky, kx) in enumerate(window.taps):
                offset_y, offset_x = ky * dilation_y - top, kx * dilation_x - left
                y0, y1 = reaching(offset_y, stride_y, *bounds, rows)
                x0, x1 = reaching(offset_x, stride_x, 0, width, columns)
                if y0 < y1 and x0 < x1:
                    above = offset_y - bounds[0]
                    target[
                        :,
                        y0 * stride_y + above : (y1 - 1) * stride_y + above + 1 : stride_y,
                        x0 * stride_x + offset_x : (x1 - 1) * stride_x + offset_x + 1 : stride_x,
                    ] += products[tap, :, y0 - first : y1 - first, x0:x1]
            of_inputs = slice(index * per_group, (index + 1) * per_group)
            gradient[slice(*bounds), :, of_inputs] = target.transpose(1, 2, 0)

    row_bytes = columns * taps * per_group * output_gradient.itemsize
    # The rows around a strip are multiplied twice, so a strip is several times the window's height.
    length = max(_STRIP_BYTES // row_bytes, 4 * window.extent[0]) * stride_y
    threads.map(strip, strips(height, length))
    return gradient


def _patches(
    input: Array, window: Window, origin: tuple[int, int], block: tuple[int, int, int, int], planes: bool
) -> Array:
    """Return the input under each output of ``block``: (outputs, taps * C), zeros where the window lies on padding.

    With ``planes`` it lies in memory as (taps * C, outputs): with few channels, copying planes is faster than copying
    the few values of each pixel.
    """
    height, width, channels = input.shape
    y0, y1, x0, x1 = block
    (stride_y, stride_x), (dilation_y, dilation_x) = window.strides, window.dilations
    is_pointwise = len(window.taps) == 1 and window.strides == (1, 1) and origin == (0, 0)
    if is_pointwise and y1 <= height and (x0, x1) == (0, width):  # none of them on padding
        return input[y0:y1].reshape(-1, channels)
    if planes:
        in_planes = np.empty((len(window.taps), channels, y1 - y0, x1 - x0), input.dtype)
        patches = in_planes.transpose(2, 3, 0, 1)
    else:
        patches = np.empty((y1 - y0, x1 - x0, len(window.taps), channels), input.dtype)
    for tap, (ky, kx) in enumerate(window.taps):
        offset_y = ky * dilation_y - origin[0] + y0 * stride_y
        offset_x = kx * dilation_x - origin[1] + x0 * stride_x
        top, bottom = reaching(offset_y, stride_y, 0, height, y1 - y0)
        left, right = reaching(offset_x, stride_x, 0, width, x1 - x0)
        of_tap = patches[:, :, tap]
        if top < bottom and left < right:
            of_tap[top:bottom, left:right] = input[
                top * stride_y + offset_y : (bottom - 1) * stride_y + offset_y + 1 : stride_y,
                left * stride_x + offset_x : (right - 1) * stride_x + offset_x + 1 : stride_x,
            ]
            of_tap[:top] = 0
            of_tap[bottom:] = 0
            of_tap[top:bottom, :left] = 0
            of_tap[top:bottom, right:] = 0
        else:
            of_tap[...] = 0
    if planes:
        return in_planes.reshape(len(window.taps) * channels, -1).T
    return patches.reshape(-1, len(window.taps) * channels)
