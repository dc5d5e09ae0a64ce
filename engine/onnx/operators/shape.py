"""The same values in another shape."""

from __future__ import annotations

import math

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, axis_of, summed_to


def flatten(call: Call, input: Array) -> Array:
    """Return a matrix: axes before ``axis`` are its rows, the others its columns. Source: ONNX Flatten (opset 21)."""
    axis = int(call.number("axis", 1))
    # Behind the last axis is a place too.
    axis = axis if axis == input.ndim else axis_of(axis, input.ndim)
    return input.reshape(math.prod(input.shape[:axis]), -1 if input.size else math.prod(input.shape[axis:]))


def reshape(call: Call, data: Array, shape: Array | None = None) -> Array:
    """Return the data in another shape: 0 keeps an axis's size, -1 takes what is left. Source: ONNX Reshape (opset 21).

    With ``allowzero`` a 0 is an axis of no elements. Before opset 5 the shape is an attribute.
    """
    wanted = call.integers("shape", shape)
    if wanted is None:
        raise ValueError("the shape is missing")
    if not call.flag("allowzero"):
        if any(size == 0 and axis >= data.ndim for axis, size in enumerate(wanted)):
            raise ValueError(f"the shape {wanted} keeps an axis that an input of {data.shape} does not have")
        wanted = tuple(data.shape[axis] if size == 0 else size for axis, size in enumerate(wanted))
    return data.reshape(wanted)


def squeeze(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the data without ``axes`` of size 1, all of them by default. Source: ONNX Squeeze (opset 21)."""
    chosen = call.integers("axes", axes)
    return np.squeeze(data, chosen)


def unsqueeze(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the data with an axis of size 1 at each of ``axes`` of the output. Source: ONNX Unsqueeze (opset 21)."""
    chosen = call.integers("axes", axes)
    if chosen is None:
        raise ValueError("the axes are missing")
    return np.expand_dims(data, chosen)


def reshaping_input_gradients(
    call: Call, output_gradient: Array, output: Array, data: Array, other: Array | None = None
) -> Gradients:
    """Return the gradient of Flatten, Reshape, Squeeze or Unsqueeze with respect to the data: in its old shape."""
    return lambda: output_gradient.reshape(data.shape), None


def transpose(call: Call, data: Array) -> Array:
    """Return the axes in the order ``perm``, backwards by default. Source: ONNX Transpose (opset 21)."""
    return np.transpose(data, call.integers("perm"))


def transpose_input_gradients(call: Call, output_gradient: Array, output: Array, data: Array) -> Gradients:
    """Return the gradient with respect to the data: the axes back in their order."""
    order = call.integers("perm")
    return (lambda: np.transpose(output_gradient, None if order is None else np.argsort(order)),)


def expand(call: Call, input: Array, shape: Array) -> Array:
    """Return the input, repeated so that it has the shape it broadcasts to. Source: ONNX Expand (opset 13)."""
    wanted = call.integers("shape", shape) or ()
    return np.broadcast_to(input, np.broadcast_shapes(input.shape, wanted))


def expand_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array, shape: Array) -> Gradients:
    """Return the gradient with respect to the input: the sum over what was repeated."""
    return lambda: summed_to(output_gradient, input.shape), None


def shape_(call: Call, data: Array) -> Array:
    """Return the sizes of the axes from ``start`` to ``end``, int64. Source: ONNX Shape (opset 21)."""
    return np.array(data.shape[call.number("start", 0) : call.number("end", None)], np.int64)


OPERATORS = (
    Operator("Expand", expand, expand_input_gradients),
    Operator("Flatten", flatten, reshaping_input_gradients),
    Operator("Reshape", reshape, reshaping_input_gradients),
    Operator("Shape", shape_),
    Operator("Squeeze", squeeze, reshaping_input_gradients),
    Operator("Transpose", transpose, transpose_input_gradients),
    Operator("Unsqueeze", unsqueeze, reshaping_input_gradients),
)
