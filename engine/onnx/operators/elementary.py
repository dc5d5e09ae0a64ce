"""Elementary functions of one array, element by element."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator


def abs_(call: Call, X: Array) -> Array:
    """Return the absolute value; complex numbers are negated where their real part is. Source: ONNX Abs (opset 13)."""
    return np.where(X.real < 0, -X, X) if X.dtype.kind == "c" else np.abs(X)


def abs_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: times its sign, 0 at 0."""
    return (lambda: output_gradient * np.sign(X.real),)


def exp(call: Call, input: Array) -> Array:
    """Return the exponential. Source: ONNX Exp (opset 13)."""
    return np.exp(input)


def exp_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input: times the output."""
    return (lambda: output_gradient * output,)


def log(call: Call, input: Array) -> Array:
    """Return the natural logarithm. Source: ONNX Log (opset 13)."""
    return np.log(input)


def log_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input."""
    return (lambda: output_gradient / input,)


def neg(call: Call, X: Array) -> Array:
    """Return -X. Source: ONNX Neg (opset 13)."""
    return -X


def neg_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    return (lambda: -output_gradient,)


def reciprocal(call: Call, X: Array) -> Array:
    """Return 1 / X. Source: ONNX Reciprocal (opset 13)."""
    return 1 / X


def reciprocal_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X: times -1 / X^2."""
    return (lambda: -output_gradient * np.square(output),)


def sqrt(call: Call, X: Array) -> Array:
    """Return the square root. Source: ONNX Sqrt (opset 13)."""
    return np.sqrt(X)


def sqrt_input_gradients(call: Call, output_gradient: Array, output: Array, X: Array) -> Gradients:
    """Return the gradient with respect to X."""
    return (lambda: output_gradient / (2 * output),)


OPERATORS = (
    Operator("Abs", abs_, abs_input_gradients),
    Operator("Exp", exp, exp_input_gradients),
    Operator("Log", log, log_input_gradients),
    Operator("Neg", neg, neg_input_gradients),
    Operator("Reciprocal", reciprocal, reciprocal_input_gradients),
    Operator("Sqrt", sqrt, sqrt_input_gradients),
)
