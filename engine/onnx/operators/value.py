"""Constants, and values that go through: Constant, ConstantOfShape, Identity, Dropout at inference, Cast."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, UnsupportedError

# By the numbers of ONNX's TensorProto.DataType: those that NumPy has.
DTYPES = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}

# Their names there, from 1.
_NAMES = (
    *("FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "FLOAT16", "DOUBLE"),
    *("UINT32", "UINT64"),
)


def constant(call: Call) -> Array:
    """Return the value of the node. Source: ONNX Constant (opset 25)."""
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in call.attributes:
            return np.array(call.attributes[name], dtype)
    for name in ("value_int", "value_ints"):
        if name in call.attributes:
            return np.array(call.attributes[name], np.int64)
    value = call.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise UnsupportedError("a Constant that is not a dense array of numbers is not supported")
    return value


def constant_of_shape(call: Call, input: Array) -> Array:
    """Return an array of the shape given, filled with ``value``. Source: ONNX ConstantOfShape (opset 25)."""
    value = call.number("value", np.zeros(1, np.float32))
    return np.full(call.integers("shape", input) or (), value.reshape(-1)[0], value.dtype)


def identity(call: Call, input: Array) -> Array:
    """Return the input. Source: ONNX Identity (opset 25)."""
    return input


def identity_input_gradients(call: Call, output_gradient: Array, output: Array, input: Array) -> Gradients:
    """Return the gradient with respect to the input: the output's."""
    return (lambda: output_gradient,)


def dropout(
    call: Call, data: Array, ratio: Array | None = None, training_mode: Array | None = None
) -> tuple[Array, Array]:
    """Return the data and a mask that is true throughout, as at inference. Source: ONNX Dropout (opset 22)."""
    share = call.number("ratio", 0.5) if ratio is None else float(ratio.reshape(-1)[0])
    training = training_mode is not None and bool(training_mode.reshape(-1)[0])
    training |= call.opset < 7 and not call.flag("is_test")
    if training and share:
        raise UnsupportedError("Dropout in training mode is not supported")
    return data, np.ones(data.shape, bool if call.opset >= 10 else data.dtype)


def dropout_input_gradients(
    call: Call,
    output_gradient: Array,
    output: Array,
    data: Array,
    ratio: Array | None = None,
    training_mode: Array | None = None,
) -> Gradients:
    """Return the gradient with respect to the data: the output's."""
    return lambda: output_gradient, None, None


def cast_type(to: int | str) -> int:
    """Return the number of the type that a Cast's ``to`` stands for, 0 for none; until opset 5 it is a name."""
    return int(to) if not isinstance(to, str) else _NAMES.index(to) + 1 if to in _NAMES else 0


def cast(call: Call, input: Array) -> Array:
    """Return the input in another type of number. Source: ONNX Cast (opset 13)."""
    kind = cast_type(call.attributes.get("to", 0))
    if kind not in DTYPES:
        raise UnsupportedError(f"Cast to the type {kind} is not supported, only to NumPy's own types of numbers")
    return input.astype(DTYPES[kind])


def cast_like(call: Call, input: Array, target_type: Array) -> Array:
    """Return the input in the type of the second one. Source: ONNX CastLike (opset 15)."""
    return input.astype(target_type.dtype)


def cast_input_gradients(
    call: Call, output_gradient: Array, output: Array, input: Array, target_type: Array | None = None
) -> Gradients:
    """Return the gradient with respect to the input, in its type; none passes through integers."""
    return lambda: output_gradient.astype(np.result_type(input, output_gradient)), None


OPERATORS = (
    Operator("Cast", cast, cast_input_gradients),
    Operator("CastLike", cast_like, cast_input_gradients),
    Operator("Constant", constant),
    Operator("ConstantOfShape", constant_of_shape),
    Operator("Dropout", dropout, dropout_input_gradients),
    Operator("Identity", identity, identity_input_gradients),
)
