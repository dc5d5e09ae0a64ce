"""Activation functions: each value on its own. Complex numbers take the branch of their real part."""

from __future__ import annotations

import numpy as np
import scipy

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, summed_to

# The constants of Klambauer et al., "Self-Normalizing Neural Networks" (2017), as ONNX rounds them to float32.
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def relu(call: Call, X: Array) -> Array:
    """Return max(X, 0). Source: ONNX Relu (opset 14)."""
    return call.device.relu(np.asarray(X, order="C"))


def relu_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: 0 where X was not positive."""

    def of_x() -> Array:
        return call.device.relu_input_gradient(np.asarray(output_gradient, order="C"), np.asarray(output, order="C"))

    return (of_x,)


def leaky_relu(call: Call, X: Array) -> Array:
    """Return X, times ``alpha`` where it is negative. Source: ONNX LeakyRelu (opset 16)."""
    return np.where(X.real < 0, _like(X, call.number("alpha", 0.01)) * X, X)


def leaky_relu_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    alpha = _like(X, call.number("alpha", 0.01))
    return (lambda: np.where(X.real < 0, alpha * output_gradient, output_gradient),)


def prelu(call: Call, X: Array, slope: Array) -> Array:
    """Return X, times ``slope`` where it is negative. Source: ONNX PRelu (opset 16)."""
    return np.where(X.real < 0, _slope(call, X, slope) * X, X)


def prelu_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array, slope: Array) -> Gradients:
    """Return the gradients with respect to X and the slope."""
    aligned = _slope(call, X, slope)
    return (
        lambda: np.where(X.real < 0, aligned * output_gradient, output_gradient),
        lambda: summed_to(np.where(X.real < 0, X * output_gradient, 0), aligned.shape).reshape(slope.shape),
    )


def _slope(call: Call, X: Array, slope: Array) -> Array:
    """Return the slope so that it broadcasts: before opset 7 it was one number for each channel."""
    if call.opset < 7 and slope.ndim == 1 and X.ndim > 1:
        return slope.reshape(-1, *[1] * (X.ndim - 2))
    return slope


def elu(call: Call, X: Array) -> Array:
    """Return X, where it is negative ``alpha`` (exp X - 1). Source: ONNX Elu (opset 22)."""
    return np.where(X.real < 0, _like(X, call.number("alpha", 1.0)) * np.expm1(_negative(X)), X)


def elu_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    alpha = _like(X, call.number("alpha", 1.0))
    return (lambda: np.where(X.real < 0, (output + alpha) * output_gradient, output_gradient),)


def selu(call: Call, X: Array) -> Array:
    """Return ``gamma`` times X, where it is negative ``gamma alpha`` (exp X - 1). Source: ONNX Selu (opset 22)."""
    alpha, gamma = _selu(call, X)
    return gamma * np.where(X.real <= 0, alpha * np.expm1(_negative(X)), X)


def selu_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    alpha, gamma = _selu(call, X)
    return (lambda: np.where(X.real <= 0, output + gamma * alpha, gamma) * output_gradient,)


def _selu(call: Call, X: Array) -> tuple[Array, Array]:
    alpha, gamma = (SELU_ALPHA, SELU_GAMMA) if call.opset >= 6 else (1.6732, 1.0507)
    return _like(X, call.number("alpha", alpha)), _like(X, call.number("gamma", gamma))


def clip(call: Call, X: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """Return X, no less than ``min`` and no more than ``max``. Source: ONNX Clip (opset 13; attributes before 11)."""
    low, high = _bounds(call, X, min, max)
    raised = X if low is None else np.where(X.real < low, low, X)
    return raised if high is None else np.where(raised.real > high, high, raised)


def clip_input_gradients(
    call: Call, output_gradient: Array, output: Array, X: Array, min: Array | None = None, max: Array | None = None
) -> Gradients:
    """Return the gradient with respect to X: 0 where a bound took its place."""
    low, high = _bounds(call, X, min, max)

    def of_x() -> Array:
        inside = np.ones(X.shape, bool)
        if low is not None:
            inside &= X.real >= low
        if high is not None:
            # Bounds the wrong way round leave the upper one everywhere.
            inside &= X.real <= high
        return np.where(inside, output_gradient, 0)

    return of_x, None, None


def _bounds(call: Call, X: Array, low: Array | None, high: Array | None) -> tuple[Array | None, Array | None]:
    if call.opset < 11:
        low, high = call.attributes.get("min"), call.attributes.get("max")
    real = X.real.dtype
    return tuple(None if one is None else np.asarray(one).astype(real) for one in (low, high))  # type: ignore[return-value]  # two


def sigmoid(call: Call, X: Array) -> Array:
    """Return 1 / (1 + exp(-X)). Source: ONNX Sigmoid (opset 13)."""
    # The exponential of what is not positive cannot overflow.
    small = np.exp(np.where(X.real < 0, X, -X))
    return np.where(X.real < 0, small, 1) / (1 + small)


def sigmoid_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    return (lambda: output_gradient * output * (1 - output),)


def hard_sigmoid(call: Call, X: Array) -> Array:
    """Return ``alpha`` X + ``beta``, cut off at 0 and 1. Source: ONNX HardSigmoid (opset 22)."""
    line = _like(X, call.number("alpha", 0.2)) * X + _like(X, call.number("beta", 0.5))
    return np.where(line.real < 0, 0, np.where(line.real > 1, 1, line)).astype(line.dtype)


def hard_sigmoid_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: 0 where it is cut off."""
    alpha = _like(X, call.number("alpha", 0.2))
    return (lambda: np.where((output.real > 0) & (output.real < 1), alpha * output_gradient, 0),)


def hard_swish(call: Call, X: Array) -> Array:
    """Return X times X / 6 + 1 / 2, the latter cut off at 0 and 1. Source: ONNX HardSwish (opset 22)."""
    return X * _gate(X)


def hard_swish_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    gate = _gate(X)
    slope = np.where((gate.real > 0) & (gate.real < 1), X / 6, 0)
    return (lambda: output_gradient * (gate + slope),)


def _gate(X: Array) -> Array:
    line = X / 6 + _like(X, 0.5)
    return np.where(line.real < 0, 0, np.where(line.real > 1, 1, line)).astype(line.dtype)


def softplus(call: Call, X: Array) -> Array:
    """Return log(1 + exp X). Source: ONNX Softplus (opset 22)."""
    return np.where(X.real > 0, X, 0) + np.log1p(np.exp(np.where(X.real > 0, -X, X)))


def softplus_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: times the sigmoid."""
    return (lambda: output_gradient * sigmoid(call, X),)


def softsign(call: Call, X: Array) -> Array:
    """Return X / (1 + |X|). Source: ONNX Softsign (opset 22)."""
    return X / (1 + np.where(X.real < 0, -X, X))


def softsign_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    return (lambda: output_gradient / np.square(1 + np.where(X.real < 0, -X, X)),)


def tanh(call: Call, X: Array) -> Array:
    """Return the hyperbolic tangent. Source: ONNX Tanh (opset 13)."""
    return np.tanh(X)


def tanh_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    return (lambda: output_gradient * (1 - np.square(output)),)


def erf(call: Call, input: Array) -> Array:
    """Return the error function. Source: ONNX Erf (opset 13)."""
    output: Array = scipy.special.erf(input)
    return output.astype(input.dtype, copy=False)


def erf_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input: times 2 / sqrt(pi) exp(-x^2)."""
    return (lambda: output_gradient * _like(input, 2 / np.sqrt(np.pi)) * np.exp(-np.square(input)),)


def _like(X: Array, number: float) -> Array:
    """Return a number in the precision of X."""
    return np.asarray(number, X.real.dtype)


def _negative(X: Array) -> Array:
    """Return X where it is negative, else 0: what is not used must not overflow."""
    return np.where(X.real < 0, X, 0).astype(X.dtype)


OPERATORS = (
    Operator("Clip", clip, clip_input_gradients),
    Operator("Elu", elu, elu_input_gradients),
    Operator("Erf", erf, erf_input_gradients),
    Operator("HardSigmoid", hard_sigmoid, hard_sigmoid_input_gradients),
    Operator("HardSwish", hard_swish, hard_swish_input_gradients),
    Operator("LeakyRelu", leaky_relu, leaky_relu_input_gradients),
    Operator("PRelu", prelu, prelu_input_gradients),
    Operator("Relu", relu, relu_input_gradients),
    Operator("Selu", selu, selu_input_gradients),
    Operator("Sigmoid", sigmoid, sigmoid_input_gradients),
    Operator("Softplus", softplus, softplus_input_gradients),
    Operator("Softsign", softsign, softsign_input_gradients),
    Operator("Tanh", tanh, tanh_input_gradients),
)
