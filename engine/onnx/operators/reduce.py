"""Sum, mean and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, axis_of, shared


def reduce_sum(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the sum along ``axes``, all by default. Source: ONNX ReduceSum (opset 13; axes an attribute before)."""
    return _reduced(call, data, axes, lambda along, keep: data.sum(axis=along, keepdims=keep, dtype=data.dtype))


def reduce_sum_input_gradients(
    call: Call, output_gradient: Array, output: Array, data: Array, axes: Array | None = None
) -> Gradients:
    """Return the gradient with respect to the data: the output's, repeated."""
    return lambda: np.broadcast_to(_restored(call, output_gradient, data, axes), data.shape), None


def reduce_mean(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the mean along ``axes``. Source: ONNX ReduceMean (opset 18; axes an attribute before)."""
    if not data.size and _axes(call, data, axes):
        raise ValueError(f"an input of the shape {data.shape} has no mean")
    return _reduced(
        call, data, axes, lambda along, keep: data.mean(axis=along, keepdims=keep).astype(data.dtype, copy=False)
    )


def reduce_mean_input_gradients(
    call: Call, output_gradient: Array, output: Array, data: Array, axes: Array | None = None
) -> Gradients:
    """Return the gradient with respect to the data: the output's, shared equally."""

    def of_data() -> Array:
        restored = _restored(call, output_gradient, data, axes)
        return np.broadcast_to(shared(restored, data.size // restored.size), data.shape)

    return of_data, None


def reduce_max(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the largest value along ``axes``. Source: ONNX ReduceMax (opset 20; axes an attribute before 18)."""
    lowest = _limits(data.dtype)[0]
    return _reduced(call, data, axes, lambda along, keep: data.max(axis=along, keepdims=keep, initial=lowest))


def reduce_min(call: Call, data: Array, axes: Array | None = None) -> Array:
    """Return the smallest value along ``axes``. Source: ONNX ReduceMin (opset 20; axes an attribute before 18)."""
    highest = _limits(data.dtype)[1]
    return _reduced(call, data, axes, lambda along, keep: data.min(axis=along, keepdims=keep, initial=highest))


def reduce_extreme_input_gradients(
    call: Call, output_gradient: Array, output: Array, data: Array, axes: Array | None = None
) -> Gradients:
    """Return the gradient of ReduceMax or ReduceMin with respect to the data; equals share it."""

    def of_data() -> Array:
        wins = data == _restored(call, output, data, axes)
        along = _axes(call, data, axes)
        count = wins.sum(axis=along, keepdims=True, dtype=data.real.dtype) if along else 1
        return np.where(wins, _restored(call, output_gradient, data, axes), 0) / count

    return of_data, None


def _axes(call: Call, data: Array, axes: Array | None) -> tuple[int, ...]:
    """Return the axes to go along; () where the data is to be left as it is."""
    chosen = call.integers("axes", axes)
    if not chosen:
        return () if call.flag("noop_with_empty_axes") else tuple(range(data.ndim))
    return tuple(axis_of(axis, data.ndim) for axis in chosen)


def _reduced(call: Call, data: Array, axes: Array | None, function: Callable[[tuple[int, ...], bool], Array]) -> Array:
    along = _axes(call, data, axes)
    return function(along, call.flag("keepdims", True)) if along else data


def _restored(call: Call, array: Array, data: Array, axes: Array | None) -> Array:
    """Return an array of the output's shape with the axes back that were left out."""
    along = _axes(call, data, axes)
    return array.reshape([1 if axis in along else size for axis, size in enumerate(data.shape)])


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return what is below and above all numbers of a type: the extremes of nothing."""
    if dtype.kind == "b":
        return False, True
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return -np.inf, np.inf


OPERATORS = (
    Operator("ReduceMax", reduce_max, reduce_extreme_input_gradients),
    Operator("ReduceMean", reduce_mean, reduce_mean_input_gradients),
    Operator("ReduceMin", reduce_min, reduce_extreme_input_gradients),
    Operator("ReduceSum", reduce_sum, reduce_sum_input_gradients),
)
