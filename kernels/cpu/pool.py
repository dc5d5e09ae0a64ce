"""Average and maximum over a sliding window, and their input gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import Window, output_size, reaching, resolved_pads, strips

Array = NDArray[Any]

# Output rows a strip are chosen so that it covers about this many input values.
_STRIP = 1 << 17


def average_pool(threads: Threads, input: Array, window: Window, *, count_include_pad: bool = False) -> Array:
    """Return the mean over each window.

    Parameters
    ----------
    input : (H, W, C).
    window : where the windows lie.
    count_include_pad : whether padding counts as zeros in the mean; the part of a window that ``ceil_mode`` puts
        beyond the padding never counts.

    Source: ONNX AveragePool (opset 22).
    """
    height, width, channels = input.shape
    rows, columns = output_size(window, height, width)
    weight = _mean_weights(window, height, width, count_include_pad).astype(input.real.dtype)
    output = threads.output((rows, columns, channels), input.dtype)

    def strip(bounds: tuple[int, int]) -> None:
        part = output[slice(*bounds)]
        part[...] = 0
        for _, (source, target) in _tap_slices(window, (height, width), bounds, (0, height)):
            part[target] += input[source]
        part *= weight[slice(*bounds), :, None]

    threads.map(strip, strips(rows, _strip_rows(window, width * channels)))
    return output


def average_pool_input_gradient(
    threads: Threads,
    output_gradient: Array,
    input_shape: tuple[int, int, int],
    window: Window,
    *,
    count_include_pad: bool = False,
) -> Array:
    """Return the gradient with respect to the input: each output shares its gradient equally among its window.

    Parameters
    ----------
    output_gradient : (H', W', C).
    input_shape : the input's (H, W, C).
    """
    height, width, channels = input_shape
    weight = _mean_weights(window, height, width, count_include_pad).astype(output_gradient.real.dtype)
    gradient = threads.output(input_shape, output_gradient.dtype)
    rows = len(output_gradient)

    def strip(bounds: tuple[int, int]) -> None:
        first, last = _outputs_reaching(window, (height, width), bounds, rows)
        shared = output_gradient[first:last] * weight[first:last, :, None]
        gradient[slice(*bounds)] = 0
        for _, (target, source) in _tap_slices(window, (height, width), (first, last), bounds):
            gradient[target] += shared[source]

    threads.map(strip, strips(height, _strip_rows(window, width * channels) * window.strides[0]))
    return gradient


def average_pool_of_relu(threads: Threads, input: Array, window: Window) -> tuple[Array, NDArray[np.uint8]]:
    """Return the mean over each window of a ReLU's output, and which values of the window are positive.

    Parameters
    ----------
    input : (H, W, C).
    window : side by side, without padding, of eight taps at most.

    Returns
    -------
    output : (H', W', C).
    signs : (H', W', C), uint8: bit t is set where tap t, row by row, is positive.
    """
    output = average_pool(threads, input, window)
    signs = threads.output(output.shape, np.uint8)
    signs[...] = 0
    for tap, values in enumerate(_taps_of(input, output.shape, window)):
        signs |= (values > 0).astype(np.uint8) << tap
    return output, signs


def average_pool_of_relu_input_gradient(
    threads: Threads,
    output_gradient: Array,
    signs: NDArray[np.uint8],
    input_shape: tuple[int, int, int],
    window: Window,
) -> Array:
    """Return the gradient with respect to the ReLU's input, back through the pooling and the ReLU.

    Parameters
    ----------
    output_gradient : (H', W', C).
    signs : from ``average_pool_of_relu``.
    input_shape : (H, W, C) of what was pooled.
    """
    gradient = average_pool_input_gradient(threads, output_gradient, input_shape, window)
    for tap, values in enumerate(_taps_of(gradient, output_gradient.shape, window)):
        values *= signs >> tap & 1
    return gradient


def _taps_of(array: Array, pooled: tuple[int, ...], window: Window) -> list[Array]:
    """Return the values under each tap of windows that lie side by side, as views of (H', W', C)."""
    (rows, columns), (down, across) = pooled[:2], window.kernel
    return [array[ky : rows * down : down, kx : columns * across : across] for ky, kx in window.taps]


def max_pool(threads: Threads, input: Array, window: Window) -> tuple[Array, Array]:
    """Return the largest value of each window, and which tap it came from.

    Among equals the first tap, row by row, wins. Complex numbers are compared by their real part. Not-a-number wins
    over all, so that a fault upstream is not hidden. A window that holds padding only gives minus infinity.

    Parameters
    ----------
    input : (H, W, C).

    Returns
    -------
    output : (H', W', C).
    winners : (H', W', C), unsigned integers: row * kernel width + column of the winning tap.

    Source: ONNX MaxPool (opset 22).
    """
    height, width, channels = input.shape
    rows, columns = output_size(window, height, width)
    output = threads.output((rows, columns, channels), input.dtype)
    winners = threads.output(output.shape, np.min_scalar_type(len(window.taps) - 1))

    def strip(bounds: tuple[int, int]) -> None:
        best, winner = output[slice(*bounds)], winners[slice(*bounds)]
        best[...] = -np.inf
        winner[...] = 0
        for tap, (source, target) in _tap_slices(window, (height, width), bounds, (0, height)):
            candidate, current = input[source], best[target]
            wins = ~(candidate.real <= current.real) & ~np.isnan(current.real)
            np.copyto(current, candidate, where=wins)
            np.copyto(winner[target], tap, where=wins, casting="unsafe")

    threads.map(strip, strips(rows, _strip_rows(window, width * channels)))
    return output, winners


def max_pool_input_gradient(
    threads: Threads, output_gradient: Array, winners: Array, input_shape: tuple[int, int, int], window: Window
) -> Array:
    """Return the gradient with respect to the input: each output's gradient goes to the tap that won.

    Parameters
    ----------
    output_gradient, winners : (H', W', C), the latter from ``max_pool``.
    input_shape : the input's (H, W, C).
    """
    height, width, channels = input_shape
    gradient = threads.output(input_shape, output_gradient.dtype)
    rows = len(output_gradient)

    def strip(bounds: tuple[int, int]) -> None:
        first, last = _outputs_reaching(window, (height, width), bounds, rows)
        part, winner = output_gradient[first:last], winners[first:last]
        gradient[slice(*bounds)] = 0
        for tap, (target, source) in _tap_slices(window, (height, width), (first, last), bounds):
            gradient[target] += part[source] * (winner[source] == tap)

    threads.map(strip, strips(height, _strip_rows(window, width * channels) * window.strides[0]))
    return gradient


def _strip_rows(window: Window, row_size: int) -> int:
    return max(1, _STRIP // (row_size * window.strides[0]))


def _outputs_reaching(
    window: Window, size: tuple[int, int], input_rows: tuple[int, int], count: int
) -> tuple[int, int]:
    """Return the range of output rows of which at least one tap may fall into ``input_rows``."""
    top = resolved_pads(window, *size)[0]
    stride, reach = window.strides[0], window.extent[0] - 1
    return reaching(-top, stride, input_rows[0] - reach, input_rows[1], count)


def _tap_slices(
    window: Window, size: tuple[int, int], outputs: tuple[int, int], input_rows: tuple[int, int]
) -> list[tuple[int, tuple[tuple[slice, slice], tuple[slice, slice]]]]:
    """List, for each tap, the input values it reads and the outputs (counted from ``outputs[0]``) that read them.

    Only outputs in the rows ``outputs`` and inputs in the rows ``input_rows`` are listed; padding is left out.
    """
    height, width = size
    rows, columns = output_size(window, height, width)
    top, left = resolved_pads(window, height, width)[:2]
    (stride_y, stride_x), (dilation_y, dilation_x) = window.strides, window.dilations
    listed = []
    for tap, (ky, kx) in enumerate(window.taps):
        offset_y, offset_x = ky * dilation_y - top, kx * dilation_x - left
        y0, y1 = reaching(offset_y, stride_y, *input_rows, rows)
        y0, y1 = max(y0, outputs[0]), min(y1, outputs[1])
        x0, x1 = reaching(offset_x, stride_x, 0, width, columns)
        if y0 < y1 and x0 < x1:
            source = (
                slice(y0 * stride_y + offset_y, (y1 - 1) * stride_y + offset_y + 1, stride_y),
                slice(x0 * stride_x + offset_x, (x1 - 1) * stride_x + offset_x + 1, stride_x),
            )
            target = (slice(y0 - outputs[0], y1 - outputs[0]), slice(x0, x1))
            listed.append((tap, (source, target)))
    return listed


def _mean_weights(window: Window, height: int, width: int, count_include_pad: bool) -> NDArray[np.float64]:
    """Return 1 / (values counted) for each output, of shape (H', W')."""
    counts = []
    sizes, pads = output_size(window, height, width), resolved_pads(window, height, width)
    for axis, size in enumerate((height, width)):
        begin, end = pads[axis], pads[axis + 2]
        position = (
            np.arange(sizes[axis])[:, None] * window.strides[axis]
            + np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
        )
        low, high = (0, begin + size + end) if count_include_pad else (begin, begin + size)
        counts.append(((position >= low) & (position < high)).sum(axis=1))
    return 1.0 / np.maximum(np.outer(counts[0], counts[1]), 1)
