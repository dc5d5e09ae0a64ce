"""Putting arrays together and taking parts of them: concatenation, splitting, slices, gathering, padding."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, UnsupportedError, axis_of


def concat(call: Call, *inputs: Array) -> Array:
    """Return the inputs one behind the other along ``axis``. Source: ONNX Concat (opset 13)."""
    return np.concatenate(inputs, axis_of(int(call.number("axis", 1)), inputs[0].ndim))


def concat_input_gradients(call: Call, output_gradient: Array, output: Array, *inputs: Array) -> Gradients:
    """Return the gradient with respect to each input: its part."""
    axis = axis_of(int(call.number("axis", 1)), output.ndim)
    ends = list(accumulate(one.shape[axis] for one in inputs))
    return tuple(
        partial(_part, output_gradient, axis, end - one.shape[axis], end) for one, end in zip(inputs, ends, strict=True)
    )


def _part(array: Array, axis: int, start: int, end: int) -> Array:
    return array[(slice(None),) * axis + (slice(start, end),)]


def split(call: Call, input: Array, split: Array | None = None) -> tuple[Array, ...]:
    """Return parts along ``axis`` of the sizes given, or of equal ones. Source: ONNX Split (opset 18)."""
    axis = axis_of(int(call.number("axis", 0)), input.ndim)
    sizes = call.integers("split", split)
    total = input.shape[axis]
    if sizes is None:
        listed = max(call.named, call.outputs)
        count = int(call.number("num_outputs", listed))
        if not 0 < count <= listed:
            raise ValueError(f"{count} parts do not fit {listed} outputs")
        each = -(-total // count)
        sizes = tuple(min(each, max(total - index * each, 0)) for index in range(count))
    if sum(sizes) != total or min(sizes) < 0:
        raise ValueError(f"parts of {sizes} do not fit axis {axis} of size {total}")
    ends = list(accumulate(sizes))
    return tuple(_part(input, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def split_input_gradients(
    call: Call,
    output_gradients: tuple[Array | None, ...],
    outputs: tuple[Array, ...],
    input: Array,
    split: Array | None = None,
) -> Gradients:
    """Return the gradient with respect to the input: those of the parts put together, zeros where there is none."""

    def of_input() -> Array:
        dtype = np.result_type(*(gradient for gradient in output_gradients if gradient is not None))
        parts = [
            np.zeros(output.shape, dtype) if gradient is None else gradient
            for gradient, output in zip(output_gradients, outputs, strict=True)
        ]
        return np.concatenate(parts, axis_of(int(call.number("axis", 0)), input.ndim))

    return of_input, None


def slice_(
    call: Call,
    data: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    """Return every ``steps``-th element from ``starts`` to before ``ends`` along ``axes``.

    Source: ONNX Slice (opset 13). Before opset 10 all but the data are attributes.
    """
    return data[_slices(call, data, starts, ends, axes, steps)]


def slice_input_gradients(
    call: Call,
    output_gradient: Array,
    output: Array,
    data: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Gradients:
    """Return the gradient with respect to the data: the output's where it was taken from, else 0."""

    def of_data() -> Array:
        gradient = np.zeros(data.shape, output_gradient.dtype)
        gradient[_slices(call, data, starts, ends, axes, steps)] = output_gradient
        return gradient

    return of_data, None, None, None, None


def _slices(
    call: Call, data: Array, starts: Array | None, ends: Array | None, axes: Array | None, steps: Array | None
) -> tuple[slice, ...]:
    first, last = call.integers("starts", starts), call.integers("ends", ends)
    if first is None or last is None:
        raise ValueError("starts or ends are missing")
    along = call.integers("axes", axes) or tuple(range(len(first)))
    by = call.integers("steps", steps) or (1,) * len(first)
    if not len(first) == len(last) == len(along) == len(by):
        raise ValueError(f"starts {first}, ends {last}, axes {along} and steps {by} differ in number")
    slices = [slice(None)] * data.ndim
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        axis = axis_of(axis, data.ndim)
        # ONNX counts and cuts off as Python does, but for one thing: backwards from before the first is from the first.
        begin = max(start + data.shape[axis], 0) if start < 0 else start
        slices[axis] = slice(begin, end, step)
    return tuple(slices)


def gather(call: Call, data: Array, indices: Array) -> Array:
    """Return the elements of an axis that ``indices`` names, in their shape. Source: ONNX Gather (opset 13)."""
    axis = axis_of(int(call.number("axis", 0)), data.ndim)
    return np.take(data, indices, axis=axis)


def gather_input_gradients(call: Call, output_gradient: Array, output: Array, data: Array, indices: Array) -> Gradients:
    """Return the gradient with respect to the data: the sum over all places that an element was taken to."""

    def of_data() -> Array:
        axis = axis_of(int(call.number("axis", 0)), data.ndim)
        gradient = np.zeros((data.shape[axis], *data.shape[:axis], *data.shape[axis + 1 :]), output_gradient.dtype)
        taken = tuple(range(axis, axis + indices.ndim))
        np.add.at(gradient, indices, np.moveaxis(output_gradient, taken, range(indices.ndim)))
        return np.moveaxis(gradient, 0, axis)

    return of_data, None


def gather_nd(call: Call, data: Array, indices: Array) -> Array:
    """Return the data at places given by their indices along the first axes.

    Parameters
    ----------
    data : the axes before ``batch_dims`` are gone through together with those of the indices.
    indices : (..., n), of at most as many axes as the data have behind these.

    Source: ONNX GatherND (opset 13).
    """
    return data[_places_nd(call, data, indices)]


def gather_nd_input_gradients(
    call: Call, output_gradient: Array, output: Array, data: Array, indices: Array
) -> Gradients:
    """Return the gradient with respect to the data: the sum over all places that an element was taken to."""

    def of_data() -> Array:
        gradient = np.zeros(data.shape, output_gradient.dtype)
        np.add.at(gradient, _places_nd(call, data, indices), output_gradient)
        return gradient

    return of_data, None


def _places_nd(call: Call, data: Array, indices: Array) -> tuple[Array, ...]:
    batch = int(call.number("batch_dims", 0))
    fits = indices.ndim and 0 <= batch < indices.ndim and data.shape[:batch] == indices.shape[:batch]
    if not fits or not 0 < indices.shape[-1] <= data.ndim - batch:
        raise ValueError(f"indices of the shape {indices.shape} do not fit an input of {data.shape}")
    together = [
        np.arange(size).reshape([-1 if at == axis else 1 for at in range(indices.ndim - 1)])
        for axis, size in enumerate(data.shape[:batch])
    ]
    return (*together, *np.moveaxis(indices, -1, 0))


def pad(
    call: Call,
    data: Array,
    pads: Array | None = None,
    constant_value: Array | None = None,
    axes: Array | None = None,
) -> Array:
    """Return the data with more, or less where a pad is negative, at both ends of its axes.

    ``mode`` is ``"constant"``, ``"reflect"``, ``"edge"`` or ``"wrap"``. Source: ONNX Pad (opset 21). Before opset 11
    pads and value are attributes.
    """
    for axis, places in _sources(call, data, pads, axes):
        data = np.take(data, np.maximum(places, 0), axis=axis) if data.shape[axis] else _nothing(data, axis, places)
        if (places < 0).any():
            data[(slice(None),) * axis + (places < 0,)] = _fill(call, data, constant_value)
    return data


def pad_input_gradients(
    call: Call,
    output_gradient: Array,
    output: Array,
    data: Array,
    pads: Array | None = None,
    constant_value: Array | None = None,
    axes: Array | None = None,
) -> Gradients:
    """Return the gradient with respect to the data: the sum over all places that an element was taken to."""

    def of_data() -> Array:
        gradient = output_gradient
        for axis, places in reversed(_sources(call, data, pads, axes)):
            taken = np.moveaxis(gradient, axis, 0)
            total = np.zeros((data.shape[axis], *taken.shape[1:]), gradient.dtype)
            np.add.at(total, places[places >= 0], taken[places >= 0])
            gradient = np.moveaxis(total, 0, axis)
        return gradient

    return of_data, None, None, None


def _sources(call: Call, data: Array, pads: Array | None, axes: Array | None) -> list[tuple[int, Array]]:
    """Return, for each axis that changes, where along it each output element comes from; -1 for the constant."""
    mode = call.number("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise UnsupportedError(f"Pad with mode {mode!r} is not supported")
    amounts = call.integers("pads" if call.opset > 1 else "paddings", pads)
    chosen = range(data.ndim) if axes is None else [axis_of(int(axis), data.ndim) for axis in axes.reshape(-1)]
    if amounts is None or len(amounts) != 2 * len(chosen):
        raise ValueError(f"pads are {amounts}, an input of {data.shape} expects {2 * len(chosen)} numbers")
    sources = []
    for axis, begin, end in zip(chosen, amounts[: len(chosen)], amounts[len(chosen) :], strict=True):
        size = data.shape[axis]
        if begin or end:
            around = (max(begin, 0), max(end, 0))
            places = np.arange(size)
            constant = {"constant_values": -1} if mode == "constant" else {}
            places = np.pad(places, around, mode, **constant)
            sources.append((axis, places[max(-begin, 0) : len(places) - max(-end, 0)]))
    return sources


def _fill(call: Call, data: Array, constant_value: Array | None) -> Array:
    value = call.number("value", 0.0) if constant_value is None else constant_value.reshape(-1)[0]
    return np.asarray(value).astype(data.dtype)


def _nothing(data: Array, axis: int, places: Array) -> Array:
    """Return an array for padding alone: there is nothing to take from."""
    return np.zeros((*data.shape[:axis], len(places), *data.shape[axis + 1 :]), data.dtype)


OPERATORS = (
    Operator("Concat", concat, concat_input_gradients),
    Operator("Gather", gather, gather_input_gradients),
    Operator("GatherND", gather_nd, gather_nd_input_gradients),
    Operator("Pad", pad, pad_input_gradients),
    Operator("Slice", slice_, slice_input_gradients),
    Operator("Split", split, split_input_gradients, several=True),
)
