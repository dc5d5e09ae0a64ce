"""Comparisons, truth values, and the choice between two arrays by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.onnx.operators.arithmetic import aligned
from engine.onnx.operators.operator import Array, Call, Gradients, Operator, summed_to


def where(call: Call, condition: Array, X: Array, Y: Array) -> Array:
    """Return X where the condition holds, else Y. Source: ONNX Where (opset 16)."""
    return np.where(condition, X, Y)


def where_input_gradients(
    call: Call, output_gradient: Array, output: Array, condition: Array, X: Array, Y: Array
) -> Gradients:
    """Return the gradients with respect to X and Y: each where it was chosen."""
    return (
        None,
        lambda: summed_to(np.where(condition, output_gradient, 0), X.shape),
        lambda: summed_to(np.where(condition, 0, output_gradient), Y.shape),
    )


def logical_not(call: Call, X: Array) -> Array:
    """Return where X is false. Source: ONNX Not (opset 1)."""
    return np.logical_not(X)


def _comparison(name: str, function: Callable[[Array, Array], Array]) -> Operator:
    """Return an operator of two arrays that tells where something holds; it has no gradient."""

    def compare(call: Call, A: Array, B: Array) -> Array:
        return function(A, aligned(call, A, B))

    return Operator(name, compare)


# Source: ONNX And, Or (opset 7), Equal (19), Greater, Less (13), GreaterOrEqual, LessOrEqual (16).
OPERATORS = (
    _comparison("And", np.logical_and),
    _comparison("Equal", np.equal),
    _comparison("Greater", np.greater),
    _comparison("GreaterOrEqual", np.greater_equal),
    _comparison("Less", np.less),
    _comparison("LessOrEqual", np.less_equal),
    Operator("Not", logical_not),
    _comparison("Or", np.logical_or),
    Operator("Where", where, where_input_gradients),
)
