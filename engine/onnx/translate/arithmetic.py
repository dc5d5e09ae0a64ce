"""Branches that meet, and arithmetic with constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError
from engine.onnx.scope import RefusedError, Scope, label
from engine.onnx.translate.layout import reorder
from engine.onnx.view import Channel, View
from engine.ops import Add, Affine, Array, Concat


def add(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Add: of two branches, or of a value and a constant."""
    if any(name in scope.constants for name in node.input):
        with_constant(scope, node, attributes)
    else:
        add_up(scope, node, attributes)


def add_up(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Sum: of any number of branches."""
    _join(scope, node, Add())


def concat(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Concat: of branches along their channels, or of the image's channels."""
    views = [scope.view(node, position) for position in range(len(node.input))]
    if views and all(view.channels is not None for view in views):
        reorder(scope, node, views)
        return
    values = [scope.activation(node, position) for position in range(len(node.input))]
    axis = int(attributes.get("axis", 1))
    if values and not (-4 <= axis < 4 and values[0].axes[axis] == "C"):
        raise RefusedError(f"Concat along axis {axis} is not supported, only along the channels")
    _join(scope, node, Concat())


def _join(scope: Scope, node: onnx.NodeProto, junction: Add | Concat) -> None:
    """Read a node in which branches meet."""
    first, *others = (scope.activation(node, position) for position in range(max(len(node.input), 1)))
    for other in others:
        if other.axes != first.axes:
            raise RefusedError(f"its inputs have the axes {first.axes} and {other.axes}")
    if others:
        scope.emit(node, junction, first, *others)
    else:
        scope.views[node.output[0]] = first


def with_constant(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Add, Sub, Mul or Div of a value and a constant number for each channel."""
    constant_at = next((i for i, name in enumerate(node.input) if name in scope.constants), None)
    if constant_at is None or len(node.input) != 2:
        raise RefusedError(f"{node.op_type} of two computed values is not supported")
    if constant_at == 0 and node.op_type == "Div":
        raise RefusedError("Div of a constant by a computed value is not supported")
    view = scope.view(node, 1 - constant_at)
    if view.whole:
        raise RefusedError(f"{node.op_type} of whole numbers is not supported")
    numbers = _of_channels(scope, node, constant_at, view, attributes)
    ones, zeros = np.ones_like(numbers), np.zeros_like(numbers)
    scale, shift = {
        "Add": (ones, numbers),
        "Sub": (ones, -numbers) if constant_at == 1 else (-ones, numbers),
        "Mul": (numbers, zeros),
        "Div": (1 / np.where(numbers == 0, np.nan, numbers), zeros),
    }[node.op_type]
    if not np.isfinite(scale).all():
        raise ModelError(f"{label(node)}: divides by zero")
    if view.channels is not None:
        scope.views[node.output[0]] = scaled(view, scale, shift)
    else:
        scope.emit(node, Affine(scale, shift), scope.activation(node, 1 - constant_at))


def _of_channels(scope: Scope, node: onnx.NodeProto, position: int, view: View, attributes: Mapping[str, Any]) -> Array:
    """Return a constant as one number for each channel, or for all; it may have the same for all pixels."""
    constant = scope.weights(node, position, "constant").astype(np.float64)
    count = len(view.axes)
    if "axis" in attributes:  # before opset 7 the constant's axes began at this one
        behind = count - int(attributes["axis"]) % count - constant.ndim
        constant = constant.reshape(constant.shape + (1,) * behind)
    if constant.ndim > count:
        raise RefusedError(f"{node.op_type} with a constant of shape {constant.shape} is not supported")
    constant = constant.reshape((1,) * (count - constant.ndim) + constant.shape)
    for axis, letter in enumerate(view.axes):
        if letter != "C" and constant.shape[axis] != 1:
            first = constant.take([0], axis=axis)
            if letter == "N" or not (constant == first).all():
                raise RefusedError(f"{node.op_type} with a constant that differs from pixel to pixel is not supported")
            constant = first
    return constant.reshape(-1)


def scaled(view: View, scale: Array, shift: Array) -> View:
    """Return a view of the image's channels, each times a number plus another."""
    channels = view.channels or ()
    if not {scale.size, shift.size} <= {1, len(channels)}:
        raise ValueError(f"input has {len(channels)} channels, the constant has {max(scale.size, shift.size)} values")
    numbers = zip(channels, np.broadcast_to(scale, len(channels)), np.broadcast_to(shift, len(channels)), strict=True)
    scaled = tuple(Channel(one.source, float(one.scale * a), float(one.shift * a + b)) for one, a, b in numbers)
    return replace(view, channels=scaled, whole=False)
