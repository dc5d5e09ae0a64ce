"""Normalization: by stored or by the image's own mean and variance, by neighboring channels, to a sum of one."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, UnsupportedError, at_axis, axis_of


def batch_normalization(call: Call, X: Array, scale: Array, B: Array, input_mean: Array, input_var: Array) -> Array:
    """Return (X - mean) / sqrt(variance + epsilon) * scale + B, channel by channel, as at inference.

    Parameters
    ----------
    X : (N, C, ...).
    scale, B, input_mean, input_var : (C,).

    Source: ONNX BatchNormalization (opset 15).
    """
    # What says that the node stands in a network in training: an attribute since opset 14, before that its further
    # outputs, and before opset 7 an attribute of the opposite sense.
    training = call.flag("training_mode") or call.outputs > 1 or (call.opset < 7 and not call.flag("is_test"))
    if training:
        raise UnsupportedError("BatchNormalization in training mode is not supported")
    channels = X.shape[1:2]
    for name, values in (("scale", scale), ("B", B), ("input_mean", input_mean), ("input_var", input_var)):
        if values.shape != channels:
            raise ValueError(f"{name} has the shape {values.shape}, an input of {X.shape} expects {channels}")
    factor = _factor(call, X, scale, input_var)
    output: Array = (X - at_axis(1, input_mean, X.ndim)) * factor + at_axis(1, B, X.ndim)
    return output.astype(np.result_type(X, np.float16) if X.dtype.kind == "c" else X.dtype, copy=False)


def batch_normalization_input_gradients(
    call: Call, output_gradient: Array, output: Array, X: Array, scale: Array, B: Array, mean: Array, variance: Array
) -> Gradients:
    """Return the gradient with respect to X: times scale / sqrt(variance + epsilon). The parameters do not move."""
    return lambda: output_gradient * _factor(call, X, scale, variance), None, None, None, None


def _factor(call: Call, X: Array, scale: Array, variance: Array) -> Array:
    epsilon = np.asarray(call.number("epsilon", 1e-5), variance.dtype)
    return at_axis(1, scale / np.sqrt(variance + epsilon), X.ndim)


def instance_normalization(call: Call, input: Array, scale: Array, B: Array) -> Array:
    """Return each channel of each image with mean 0 and variance 1, times scale, plus B.

    Parameters
    ----------
    input : (N, C, ...).
    scale, B : (C,).

    Source: ONNX InstanceNormalization (opset 22).
    """
    normalized, _ = _standardized(call, input)
    return normalized * at_axis(1, scale, input.ndim) + at_axis(1, B, input.ndim)


def instance_normalization_input_gradients(
    call: Call, output_gradient: Array, output: Array, input: Array, scale: Array, B: Array
) -> Gradients:
    """Return the gradient with respect to the input: without its mean and its part along the normalized input."""

    def of_input() -> Array:
        normalized, deviation = _standardized(call, input)
        axes = tuple(range(2, input.ndim))
        scaled = output_gradient * at_axis(1, scale, input.ndim)
        along = normalized * (scaled * normalized).mean(axis=axes, keepdims=True)
        return (scaled - scaled.mean(axis=axes, keepdims=True) - along) / deviation

    return of_input, None, None


def _standardized(call: Call, input: Array) -> tuple[Array, Array]:
    """Return the input with mean 0 and variance 1 over each channel, and the deviation it was divided by."""
    if not input.size:
        raise ValueError(f"an input of the shape {input.shape} has no mean")
    axes = tuple(range(2, input.ndim))
    centered = input - input.mean(axis=axes, keepdims=True)
    variance = (centered * centered).mean(axis=axes, keepdims=True)
    deviation = np.sqrt(variance + np.asarray(call.number("epsilon", 1e-5), input.real.dtype))
    return centered / deviation, deviation


def lrn(call: Call, X: Array) -> Array:
    """Return X / (bias + alpha / size * S)^beta, S the squares of ``size`` neighboring channels, summed.

    Parameters
    ----------
    X : (N, C, ...).

    Source: ONNX LRN (opset 13).
    """
    return X * np.power(_local_sum(call, X), -np.asarray(call.number("beta", 0.75), X.real.dtype))


def lrn_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: its own share, and that of all sums which its square is part of."""

    def of_x() -> Array:
        size = int(call.attributes["size"])
        alpha, beta = (np.asarray(call.number(name, default), X.real.dtype) for name, default in _LRN)
        local = _local_sum(call, X)
        power = np.power(local, -beta)
        shared = _neighbors(output_gradient * X * power / local, size, transposed=True)
        return output_gradient * power - 2 * alpha * beta / size * X * shared

    return (of_x,)


_LRN = (("alpha", 1e-4), ("beta", 0.75))


def _local_sum(call: Call, X: Array) -> Array:
    """Return bias + alpha / size * S."""
    size = int(call.attributes["size"])
    alpha = np.asarray(call.number("alpha", 1e-4) / size, X.real.dtype)
    return np.asarray(call.number("bias", 1.0), X.real.dtype) + alpha * _neighbors(X * X, size)


def _neighbors(values: Array, size: int, transposed: bool = False) -> Array:
    """Return the sum over each channel's neighbors: (size - 1) // 2 before it, size // 2 behind it."""
    if size < 1:
        raise ValueError(f"the size is {size}, expected at least 1")
    # Farther away there are no channels, however large the size.
    before, behind = (min(reach, values.shape[1]) for reach in ((size - 1) // 2, size // 2))
    if transposed:
        before, behind = behind, before
    channels = values.shape[1]
    total = np.zeros_like(values)
    for offset in range(-before, behind + 1):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[:, low:high] += values[:, low + offset : high + offset]
    return total


def softmax(call: Call, input: Array) -> Array:
    """Return the exponentials, divided by their sum along ``axis``. Source: ONNX Softmax (opset 13).

    Before opset 13 the sum goes over all axes from ``axis`` on.
    """
    axes = _softmax_axes(call, input)
    powers = np.exp(input - input.real.max(axis=axes, keepdims=True))
    return powers / powers.sum(axis=axes, keepdims=True)


def softmax_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input."""
    axes = _softmax_axes(call, input)
    return (lambda: output * (output_gradient - (output_gradient * output).sum(axis=axes, keepdims=True)),)


def log_softmax(call: Call, input: Array) -> Array:
    """Return the logarithm of Softmax. Source: ONNX LogSoftmax (opset 13)."""
    axes = _softmax_axes(call, input)
    shifted = input - input.real.max(axis=axes, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))


def log_softmax_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input."""
    axes = _softmax_axes(call, input)
    return (lambda: output_gradient - np.exp(output) * output_gradient.sum(axis=axes, keepdims=True),)


def _softmax_axes(call: Call, input: Array) -> tuple[int, ...]:
    axis = axis_of(int(call.number("axis", -1 if call.opset >= 13 else 1)), input.ndim)
    return (axis,) if call.opset >= 13 else tuple(range(axis, input.ndim))


OPERATORS = (
    Operator("BatchNormalization", batch_normalization, batch_normalization_input_gradients),
    Operator("InstanceNormalization", instance_normalization, instance_normalization_input_gradients),
    Operator("LRN", lrn, lrn_input_gradients),
    Operator("LogSoftmax", log_softmax, log_softmax_input_gradients),
    Operator("Softmax", softmax, softmax_input_gradients),
)
