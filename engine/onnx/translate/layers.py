"""Convolution, pooling, ReLU and batch normalization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError
from engine.onnx.file import name_of
from engine.onnx.operators.windows import window_of
from engine.onnx.scope import NO_PADS, RefusedError, Scope, label
from engine.onnx.view import View
from engine.ops import Add, Affine, Array, AveragePool, Conv, MaxPool, Operator, Relu


def conv(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Conv, with the zeros that are padded before it."""
    weight = scope.weights(node, 1, "weight")
    bias = scope.weights(node, 2, "bias") if scope.has(node, 2) else None
    value = scope.channels_second(node, pads_allowed=True)
    scope.emit(node, *convolution(scope, node, attributes, value, weight, bias))


def convolution(
    scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any], value: View, weight: Array, bias: Array | None
) -> tuple[Conv, View]:
    """Return the convolution of a node, with zeros padded before it taken in, and what it is of."""
    if weight.ndim != 4:
        raise ModelError(f"{label(node)}: weight has the shape {weight.shape}, expected four dimensions")
    filters, _, height, width = weight.shape
    group = int(attributes.get("group", 1))
    if 0 in weight.shape or group < 1 or filters % group:
        raise ModelError(f"{label(node)}: weight {weight.shape} does not fit into {group} groups")
    if bias is not None and bias.shape != (filters,):
        raise ModelError(f"{label(node)}: bias has the shape {bias.shape}, weight {weight.shape} expects {(filters,)}")
    if tuple(attributes.get("kernel_shape", (height, width))) != (height, width):
        raise ModelError(
            f"{label(node)}: kernel_shape {tuple(attributes['kernel_shape'])} does not fit weight {weight.shape}"
        )
    window = window_of({**attributes, "kernel_shape": (height, width)})
    if any(value.pads):
        if window.auto_pad.startswith("SAME"):
            raise RefusedError("a Pad before a Conv with auto_pad SAME is not supported")
        pads = tuple(outer + inner for outer, inner in zip(value.pads, window.pads, strict=True))
        window = replace(window, pads=pads, auto_pad="NOTSET")  # type: ignore[arg-type]  # four, as before
    kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    return Conv(kernel, bias, window, group), replace(value, pads=NO_PADS)


def fused_conv(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Conv, the sum with another value where there is one, Relu: as ONNX Runtime writes them when it optimizes."""
    activation = attributes.get("activation", "")
    if activation not in ("", "Relu"):
        raise RefusedError(f"FusedConv with the activation {activation!r} is not supported")
    weight = scope.weights(node, 1, "weight")
    bias = scope.weights(node, 2, "bias") if scope.has(node, 2) else None
    value = scope.channels_second(node, pads_allowed=True)
    other = scope.activation(node, 3) if scope.has(node, 3) else None
    if other is not None and other.axes != value.axes:
        raise RefusedError(f"its inputs have the axes {value.axes} and {other.axes}")
    output, name = node.output[0], name_of(node)
    steps: list[tuple[Operator, tuple[View, ...]]] = [
        (convolution(scope, node, attributes, value, weight, bias)[0], ())
    ]
    steps += [(Add(), (other,))] if other is not None else []
    steps += [(Relu(), ())] if activation else []
    value = replace(value, pads=NO_PADS)
    for number, (operator, others) in enumerate(steps, 1):
        made = output if number == len(steps) else scope.free(f"{output}/{number}")
        scope.run(name, operator, made, value, *others)
        value = scope.views[made]
    scope.views[output] = replace(value, not_negative=bool(activation))


def pool(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """AveragePool and MaxPool, over rows and columns."""
    value = scope.channels_second(node, quantized_allowed=node.op_type == "MaxPool")
    known = {"not_negative": value.not_negative, "quantized": value.quantized, "whole": value.whole}
    if "kernel_shape" not in attributes:
        raise ModelError(f"{label(node)}: kernel_shape is missing")
    if len(attributes["kernel_shape"]) != 2:
        raise RefusedError(f"a {node.op_type} over {len(attributes['kernel_shape'])} dimensions is not supported")
    window = window_of(attributes)
    if node.op_type == "MaxPool":
        scope.emit(node, MaxPool(window), value, **known)
    else:
        scope.emit(node, AveragePool(window, bool(attributes.get("count_include_pad", 0))), value, **known)
    scope.unavailable.update(name for name in node.output[1:] if name)


def relu(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Relu."""
    scope.emit(node, Relu(), scope.activation(node), not_negative=True)


def batch_normalization(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """BatchNormalization at inference: a scale and a shift for each channel."""
    if attributes.get("training_mode", 0):
        raise RefusedError("BatchNormalization in training mode is not supported")
    value = scope.channels_second(node)
    roles = ("scale", "B", "input_mean", "input_var")
    scale, shift, mean, variance = (
        scope.weights(node, position, role).astype(np.float64) for position, role in enumerate(roles, 1)
    )
    if scale.ndim != 1 or not scale.shape == shift.shape == mean.shape == variance.shape:
        raise ModelError(f"{label(node)}: scale, B, input_mean and input_var differ in shape")
    if (variance + attributes.get("epsilon", 1e-5) <= 0).any():
        raise ModelError(f"{label(node)}: input_var is negative")
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    scope.emit(node, Affine(factor, shift - mean * factor), value)
