"""Average and maximum over a sliding window, and their input gradients; the counterpart of ``kernels/cpu/pool.py``."""

from __future__ import annotations

import numpy as np

from kernels.cuda.launcher import Array, Launcher
from kernels.geometry import Window, output_size, resolved_pads


def average_pool(gpu: Launcher, input: Array, window: Window, *, count_include_pad: bool = False) -> Array:
    """Return the mean over each window.

    Parameters
    ----------
    input : (H, W, C), float32 or float16.
    window : where the windows lie.
    count_include_pad : whether padding counts as zeros in the mean; the part of a window that ``ceil_mode`` puts
        beyond the padding never counts.

    Source: ONNX AveragePool (opset 22).
    """
    height, width, channels = input.shape
    output = gpu.empty((*output_size(window, height, width), channels), input.dtype)
    place = (*_place(input.shape, window), *_border(input.shape, window, count_include_pad))
    gpu.launch_for_each("pool.cu", "average_pool", output.size, (input, output, *place), REAL=input.dtype, TAP=np.uint8)
    return output


def average_pool_input_gradient(
    gpu: Launcher,
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
    gradient = gpu.empty(input_shape, output_gradient.dtype)
    place = (*_place(input_shape, window), *_border(input_shape, window, count_include_pad))
    gpu.launch_for_each(
        "pool.cu",
        "average_pool_input_gradient",
        gradient.size,
        (output_gradient, gradient, *place),
        REAL=gradient.dtype,
        TAP=np.uint8,
    )
    return gradient


def relu_pool_suits(window: Window) -> bool:
    """Say whether ``average_pool_of_relu`` takes a window: side by side, without padding, of eight taps at most."""
    plain = Window(window.kernel, strides=window.kernel)
    return window == plain and len(window.taps) <= 8


def average_pool_of_relu(gpu: Launcher, input: Array, window: Window) -> tuple[Array, Array]:
    """Return the mean over each window of a ReLU's output, and which values of the window are positive.

    Parameters
    ----------
    input : (H, W, C), float32 or float16.
    window : one that ``relu_pool_suits``.

    Returns
    -------
    output : (H', W', C).
    signs : (H', W', C), uint8: bit t is set where tap t, row by row, is positive.
    """
    height, width, channels = input.shape
    output = gpu.empty((*output_size(window, height, width), channels), input.dtype)
    signs = gpu.empty(output.shape, np.uint8)
    arguments = (input, output, signs, width, *output.shape, *window.kernel)
    gpu.launch_for_each("pool.cu", "average_pool_of_relu", output.size, arguments, REAL=input.dtype, TAP=np.uint8)
    return output, signs


def average_pool_of_relu_input_gradient(
    gpu: Launcher, output_gradient: Array, signs: Array, input_shape: tuple[int, int, int], window: Window
) -> Array:
    """Return the gradient with respect to the ReLU's input, back through the pooling and the ReLU.

    Parameters
    ----------
    output_gradient : (H', W', C).
    signs : from ``average_pool_of_relu``.
    input_shape : (H, W, C) of what was pooled.
    """
    gradient = gpu.empty(input_shape, output_gradient.dtype)
    arguments = (output_gradient, signs, gradient, *input_shape, *output_gradient.shape[:2], *window.kernel)
    types = {"REAL": gradient.dtype, "TAP": np.uint8}
    gpu.launch_for_each("pool.cu", "average_pool_of_relu_input_gradient", gradient.size, arguments, **types)
    return gradient


def max_pool(gpu: Launcher, input: Array, window: Window) -> tuple[Array, Array]:
    """Return the largest value of each window, and which tap it came from.

    Among equals the first tap, row by row, wins. Not-a-number wins over all, so that a fault upstream is not hidden. A
    window that holds padding only gives minus infinity.

    Parameters
    ----------
    input : (H, W, C), float32 or float16.

    Returns
    -------
    output : (H', W', C).
    winners : (H', W', C), unsigned integers: row * kernel width + column of the winning tap.

    Source: ONNX MaxPool (opset 22).
    """
    height, width, channels = input.shape
    output = gpu.empty((*output_size(window, height, width), channels), input.dtype)
    winners = gpu.empty(output.shape, np.min_scalar_type(len(window.taps) - 1))
    arguments = (input, output, winners, *_place(input.shape, window))
    gpu.launch_for_each("pool.cu", "max_pool", output.size, arguments, REAL=input.dtype, TAP=winners.dtype)
    return output, winners


def max_pool_input_gradient(
    gpu: Launcher,
    output_gradient: Array,
    winners: Array,
    input_shape: tuple[int, int, int],
    window: Window,
) -> Array:
    """Return the gradient with respect to the input: each output's gradient goes to the tap that won.

    Parameters
    ----------
    output_gradient, winners : (H', W', C), the latter from ``max_pool``.
    input_shape : the input's (H, W, C).
    """
    gradient = gpu.empty(input_shape, output_gradient.dtype)
    arguments = (output_gradient, winners, gradient, *_place(input_shape, window))
    types = {"REAL": gradient.dtype, "TAP": winners.dtype}
    gpu.launch_for_each("pool.cu", "max_pool_input_gradient", gradient.size, arguments, **types)
    return gradient


def _place(input_shape: tuple[int, int, int], window: Window) -> tuple[int, ...]:
    """Return what every kernel of pool.cu is told about the window, in its order."""
    height, width, _ = input_shape
    rows, columns = output_size(window, height, width)
    top, left = resolved_pads(window, height, width)[:2]
    return (*input_shape, rows, columns, *window.kernel, *window.strides, *window.dilations, top, left)


def _border(input_shape: tuple[int, int, int], window: Window, count_include_pad: bool) -> tuple[int, int, int, int]:
    """Return how far around the input values count in a mean."""
    return resolved_pads(window, *input_shape[:2]) if count_include_pad else (0, 0, 0, 0)
