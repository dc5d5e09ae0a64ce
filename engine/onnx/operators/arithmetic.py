"""Arithmetic of two or more arrays, element by element, with broadcasting."""

from __future__ import annotations

from functools import partial, reduce

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, summed_to


def add(call: Call, A: Array, B: Array) -> Array:
    """Return A + B. Source: ONNX Add (opset 14)."""
    return A + aligned(call, A, B)


def add_input_gradients(call: Call, output_gradient: Array, output: Array, A: Array, B: Array) -> Gradients:
    """Return the gradients with respect to A and B: the output's, to both."""
    return (
        lambda: summed_to(output_gradient, A.shape),
        lambda: _of_second(call, output_gradient, A, B),
    )


def sub(call: Call, A: Array, B: Array) -> Array:
    """Return A - B. Source: ONNX Sub (opset 14)."""
    return A - aligned(call, A, B)


def sub_input_gradients(call: Call, output_gradient: Array, output: Array, A: Array, B: Array) -> Gradients:
    """Return the gradients with respect to A and B."""
    return (
        lambda: summed_to(output_gradient, A.shape),
        lambda: _of_second(call, -output_gradient, A, B),
    )


def mul(call: Call, A: Array, B: Array) -> Array:
    """Return A B, element by element. Source: ONNX Mul (opset 14)."""
    return A * aligned(call, A, B)


def mul_input_gradients(call: Call, output_gradient: Array, output: Array, A: Array, B: Array) -> Gradients:
    """Return the gradients with respect to A and B: each the output's times the other."""
    return (
        lambda: summed_to(output_gradient * aligned(call, A, B), A.shape),
        lambda: _of_second(call, output_gradient * A, A, B),
    )


def div(call: Call, A: Array, B: Array) -> Array:
    """Return A / B; of integers the part before the point, cut off toward zero. Source: ONNX Div (opset 14)."""
    b = aligned(call, A, B)
    if A.dtype.kind in "fc":
        return A / b
    floor = A // b
    up = (A % b != 0) & ((A < 0) != (b < 0))
    return np.asarray(floor + up.astype(floor.dtype))


def div_input_gradients(call: Call, output_gradient: Array, output: Array, A: Array, B: Array) -> Gradients:
    """Return the gradients with respect to A and B."""
    b = aligned(call, A, B)
    return (
        lambda: summed_to(output_gradient / b, A.shape),
        lambda: _of_second(call, -output_gradient * output / b, A, B),
    )


def pow_(call: Call, X: Array, Y: Array) -> Array:
    """Return X to the power of Y, in the type of X. Source: ONNX Pow (opset 15)."""
    power: Array = np.power(X, aligned(call, X, Y))
    return power if power.dtype.kind == "c" else power.astype(X.dtype)


def pow_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array, Y: Array) -> Gradients:
    """Return the gradients with respect to X and Y; that to the exponent is 0 where the base is."""
    y = aligned(call, X, Y)

    def of_x() -> Array:
        # X^0 is 1 wherever X is: without this, 0 times the infinite 1/X at X = 0.
        exponent = np.where(y == 0, 0, y - 1)
        return summed_to(output_gradient * y * np.power(X, exponent), X.shape)

    def of_y() -> Array:
        logarithm = np.log(np.where(X == 0, 1, X))
        return _of_second(call, output_gradient * output * logarithm, X, Y)

    return of_x, of_y


def sum_(call: Call, *data: Array) -> Array:
    """Return the sum of one or more arrays. Source: ONNX Sum (opset 13)."""
    return reduce(np.add, data)


def sum_input_gradients(call: Call, output_gradient: Array, output: Array, *data: Array) -> Gradients:
    """Return the gradients with respect to each of ``data``: the output's."""
    return tuple(partial(summed_to, output_gradient, one.shape) for one in data)


def mean(call: Call, *data: Array) -> Array:
    """Return the mean of one or more arrays. Source: ONNX Mean (opset 13)."""
    return reduce(np.add, data) / len(data)


def mean_input_gradients(call: Call, output_gradient: Array, output: Array, *data: Array) -> Gradients:
    """Return the gradients with respect to each of ``data``."""
    return tuple(partial(summed_to, output_gradient / len(data), one.shape) for one in data)


def max_(call: Call, *data: Array) -> Array:
    """Return the largest of one or more arrays at each place. Source: ONNX Max (opset 13)."""
    return reduce(np.maximum, data)


def min_(call: Call, *data: Array) -> Array:
    """Return the smallest of one or more arrays at each place. Source: ONNX Min (opset 13)."""
    return reduce(np.minimum, data)


def extreme_input_gradients(call: Call, output_gradient: Array, output: Array, *data: Array) -> Gradients:
    """Return the gradients of Max or Min with respect to each of ``data``: it goes to the first that has the value."""
    gradients = []
    taken = np.zeros(output.shape, bool)
    for one in data:
        wins = (one == output) & ~taken
        taken |= wins
        gradients.append(partial(summed_to, output_gradient * wins, one.shape))
    return tuple(gradients)


def aligned(call: Call, A: Array, B: Array) -> Array:
    """Return B so that it broadcasts as the operator set wants it: before opset 7 its axes began at ``axis`` of A's."""
    if call.opset >= 7 or "axis" not in call.attributes:
        return B
    return B.reshape(B.shape + (1,) * (A.ndim - int(call.attributes["axis"]) % A.ndim - B.ndim))


def _of_second(call: Call, gradient: Array, A: Array, B: Array) -> Array:
    return summed_to(gradient, aligned(call, A, B).shape).reshape(B.shape)


OPERATORS = (
    Operator("Add", add, add_input_gradients),
    Operator("Div", div, div_input_gradients),
    Operator("Max", max_, extreme_input_gradients),
    Operator("Mean", mean, mean_input_gradients),
    Operator("Min", min_, extreme_input_gradients),
    Operator("Mul", mul, mul_input_gradients),
    Operator("Pow", pow_, pow_input_gradients),
    Operator("Sub", sub, sub_input_gradients),
    Operator("Sum", sum_, sum_input_gradients),
)
