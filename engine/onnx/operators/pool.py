"""Pooling: averages and maxima over windows, and over whole images."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, shared
from engine.onnx.operators.windows import each_image, spatial_axes, window_of
from kernels.geometry import Window, resolved_pads


def average_pool(call: Call, X: Array) -> Array:
    """Return the mean over each window of X, (N, C, H, W) or (N, C, W). Source: ONNX AveragePool (opset 22)."""
    window, count = _window(call, X, "AveragePool"), call.flag("count_include_pad")
    return each_image(lambda image: call.device.average_pool(image, window, count_include_pad=count), X)


def average_pool_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: shared equally among each window."""
    window, count = _window(call, X, "AveragePool"), call.flag("count_include_pad")
    return (
        lambda: each_image(
            lambda gradient: call.device.average_pool_input_gradient(
                gradient, _image_shape(X), window, count_include_pad=count
            ),
            output_gradient,
        ),
    )


def max_pool(call: Call, X: Array) -> Array | tuple[Array, Array]:
    """Return the largest value of each window of X, and where it stood if asked for. Source: ONNX MaxPool (opset 22).

    The second output counts the values of X one by one: row after row, or column after column with ``storage_order`` 1.
    """
    # The kernel marks an empty window by minus infinity, which 8-bit integers do not have.
    values = X if X.dtype.kind in "fc" else X.astype(np.float32)
    window = _window(call, X, "MaxPool")
    output = each_image(lambda image: call.device.max_pool(image, window)[0], values)
    if call.outputs < 2:
        return output.astype(X.dtype, copy=False)
    places = each_image(lambda image: _places(call, image, window), values)
    image_size = X[0].size
    return output.astype(X.dtype, copy=False), places + image_size * np.arange(len(X)).reshape(-1, *[1] * (X.ndim - 1))


def max_pool_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: each output's goes to the value that won."""
    window = _window(call, X, "MaxPool")

    def of_image(gradient: Array, image: Array) -> Array:
        winners = call.device.max_pool(image, window)[1]
        return call.device.max_pool_input_gradient(gradient, winners, image.shape, window)

    return (lambda: each_image(of_image, output_gradient, X),)


def global_average_pool(call: Call, X: Array) -> Array:
    """Return the mean of each channel of X, (N, C, ...), axes kept. Source: ONNX GlobalAveragePool (opset 22)."""
    if not X.size:
        raise ValueError(f"an input of the shape {X.shape} has no mean")
    # Not mean(dtype=X.dtype): that would sum half precision in half precision, where NumPy alone takes single.
    mean: Array = X.mean(axis=tuple(range(2, X.ndim)), keepdims=True).astype(X.dtype, copy=False)
    return mean


def global_average_pool_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: shared equally among each channel's values."""
    return (lambda: np.broadcast_to(shared(output_gradient, int(np.prod(X.shape[2:]))), X.shape),)


def global_max_pool(call: Call, X: Array) -> Array:
    """Return the largest value of each channel of X, (N, C, ...), axes kept. Source: ONNX GlobalMaxPool (opset 22)."""
    return np.take_along_axis(_flat(X), _largest(X), axis=2).reshape(X.shape[:2] + (1,) * (X.ndim - 2))


def global_max_pool_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: each channel's goes to its largest value, the first among equals."""

    def of_x() -> Array:
        gradient = np.zeros(_flat(X).shape, output_gradient.dtype)
        np.put_along_axis(gradient, _largest(X), output_gradient.reshape(*X.shape[:2], 1), axis=2)
        return gradient.reshape(X.shape)

    return (of_x,)


def _flat(X: Array) -> Array:
    return X.reshape(*X.shape[:2], -1)


def _largest(X: Array) -> Array:
    return np.argmax(_flat(X).real, axis=2, keepdims=True)


def _window(call: Call, X: Array, operator: str) -> Window:
    return window_of(call.attributes, spatial_axes(X, operator))


def _image_shape(X: Array) -> tuple[int, int, int]:
    return (X.shape[2] if X.ndim == 4 else 1, X.shape[-1], X.shape[1])


def _places(call: Call, image: Array, window: Window) -> Array:
    """Return where each window's largest value stands, counted through the image's channels, (H', W', C) int64."""
    height, width, channels = image.shape
    winners = call.device.max_pool(image, window)[1].astype(np.int64)
    top, left = resolved_pads(window, height, width)[:2]
    down, along = np.arange(winners.shape[0])[:, None, None], np.arange(winners.shape[1])[None, :, None]
    y = down * window.strides[0] - top + winners // window.kernel[1] * window.dilations[0]
    x = along * window.strides[1] - left + winners % window.kernel[1] * window.dilations[1]
    in_channel = x * height + y if call.number("storage_order", 0) else y * width + x
    return in_channel + height * width * np.arange(channels)


OPERATORS = (
    Operator("AveragePool", average_pool, average_pool_input_gradients),
    Operator("GlobalAveragePool", global_average_pool, global_average_pool_input_gradients),
    Operator("GlobalMaxPool", global_max_pool, global_max_pool_input_gradients),
    Operator("MaxPool", max_pool, max_pool_input_gradients),
)
