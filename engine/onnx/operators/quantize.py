"""Numbers stored in few bits: ``x = (q - zero point) * scale``."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.onnx.operators.operator import Array, Call, Operator, UnsupportedError, axis_of
from engine.onnx.operators.value import DTYPES


def dequantize_linear(call: Call, x: Array, x_scale: Array, x_zero_point: Array | None = None) -> Array:
    """Return (x - x_zero_point) * x_scale, in the type of the scale.

    Parameters
    ----------
    x : whole numbers of 4 to 32 bits.
    x_scale, x_zero_point : one number; one for each place along ``axis``; or of the rank of x, one for each
        ``block_size`` places along it.

    Source: ONNX DequantizeLinear (opset 25).
    """
    dtype = _output_type(call, x_scale.dtype)
    if dtype.kind != "f":
        raise UnsupportedError(f"DequantizeLinear to {dtype} is not supported")
    scale = _spread(call, x, x_scale.astype(np.result_type(dtype, np.float32)))
    numbers = x.astype(np.int64) if x.dtype.kind in "iu" else x.astype(scale.dtype)
    if x_zero_point is not None:
        numbers = numbers - _spread(call, x, x_zero_point.astype(numbers.dtype))
    return (numbers.astype(scale.dtype) * scale).astype(dtype)


def quantize_linear(call: Call, x: Array, y_scale: Array, y_zero_point: Array | None = None) -> Array:
    """Return x / y_scale, rounded to the nearest even, plus y_zero_point, cut off at the ends of its type.

    Parameters
    ----------
    x : numbers.
    y_scale, y_zero_point : as in ``dequantize_linear``; the zero point's type is the output's, else ``output_dtype``,
        else uint8.

    Source: ONNX QuantizeLinear (opset 25).
    """
    dtype = _output_type(call, np.dtype(np.uint8) if y_zero_point is None else y_zero_point.dtype)
    if dtype.kind not in "iu":
        raise UnsupportedError(f"QuantizeLinear to {dtype} is not supported")
    precision = np.result_type(np.float32, y_scale.dtype)
    if kind := call.number("precision", 0):
        if kind not in DTYPES:
            raise UnsupportedError(f"QuantizeLinear in the precision {kind} is not supported")
        precision = np.dtype(DTYPES[kind])
    numbers = np.rint(x.astype(precision) / _spread(call, x, y_scale.astype(precision)))
    if y_zero_point is not None:
        numbers = numbers + _spread(call, x, y_zero_point.astype(numbers.dtype))
    limits = np.iinfo(dtype)
    return np.clip(numbers, limits.min, limits.max).astype(dtype)


def _output_type(call: Call, default: np.dtype[Any]) -> np.dtype[Any]:
    kind = call.number("output_dtype", 0)
    if kind and kind not in DTYPES:
        raise UnsupportedError(f"the output type {kind} is not supported, only NumPy's own types of numbers")
    return np.dtype(DTYPES[kind]) if kind else default


def _spread(call: Call, x: Array, values: Array) -> Array:
    """Return scales or zero points so that they broadcast to x."""
    if values.size == 1:
        return values.reshape(())
    axis = axis_of(int(call.number("axis", 1)), x.ndim)
    if values.ndim == 1 and values.size == x.shape[axis]:
        return values.reshape([-1 if at == axis else 1 for at in range(x.ndim)])
    block = int(call.number("block_size", 0))
    if block > 0 and values.ndim == x.ndim and values.shape[axis] == -(-x.shape[axis] // block):
        places = np.arange(x.shape[axis]) // block
        return np.take(values, places, axis=axis)
    raise ValueError(f"scale or zero point of the shape {values.shape} does not fit an input of {x.shape}")


OPERATORS = (
    Operator("DequantizeLinear", dequantize_linear),
    Operator("QuantizeLinear", quantize_linear),
)
