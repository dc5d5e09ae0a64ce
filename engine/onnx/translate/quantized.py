"""Activations and weights of 8 bits: the engine computes with what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError
from engine.onnx.operators import DTYPES
from engine.onnx.scope import RefusedError, Scope, label
from engine.onnx.translate.arithmetic import scaled, with_constant
from engine.onnx.translate.layers import convolution
from engine.onnx.view import DYNAMIC, PRODUCT
from engine.ops import Affine, Array, Relu

QUANTIZED = "the model's activations are quantized too: here they are neither rounded nor cut off above"
"""What is to be known of a model with QuantizeLinear between its operators."""


@dataclass(frozen=True)
class _Levels:
    """What numbers of few bits stand for: ``(q - zero) * scale``; whether none of them is below 0."""

    scale: Array
    zero: Array
    begin_at_zero: bool

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What is equal where scale and zero point are."""
        return self.scale.tobytes(), self.zero.tobytes()


def quantize(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """QuantizeLinear of a computed value: all that stays of it is a lower limit of 0, which stands for a ReLU."""
    levels = _levels(scope, node, 1, 2, int(attributes.get("output_dtype", 0)))
    scope.notes.append(QUANTIZED)
    view = scope.view(node)
    if view.channels is not None or view.not_negative or not levels.begin_at_zero:
        scope.views[node.output[0]] = replace(view, quantized=levels.key, whole=True)
    else:
        known = {"not_negative": True, "quantized": levels.key, "whole": True}
        scope.emit(node, Relu(), scope.activation(node), **known)


def dequantize(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """DequantizeLinear of a computed value, the inverse of the QuantizeLinear before it; or of an image."""
    levels, view = _levels(scope, node, 1, 2), scope.view(node)
    if view.quantized == levels.key:
        scope.views[node.output[0]] = replace(view, quantized=None, whole=False)
    elif view.quantized is None and view.channels is not None and view.whole and levels.scale.size == 1:
        scope.views[node.output[0]] = scaled(view, levels.scale, -levels.zero * levels.scale)
    else:
        raise RefusedError("DequantizeLinear with other numbers than the QuantizeLinear before it is not supported")


def quantized_conv(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """QLinearConv: the convolution of what its 8-bit numbers stand for."""
    given, of_weight, made = (_levels(scope, node, at, at + 1) for at in (1, 4, 6))
    stored = scope.tensor(node, 3, "weight")
    if stored.ndim != 4 or stored.dtype.kind not in "iu" or of_weight.scale.size not in (1, len(stored)):
        raise ModelError(f"{label(node)}: weight {stored.shape} of {stored.dtype} does not fit its scale")
    bias = None
    if scope.has(node, 8):
        bias = scope.tensor(node, 8, "bias") * (given.scale * of_weight.scale)
    value = scope.channels_second(node, pads_allowed=True, quantized_allowed=True)
    if value.quantized != given.key:
        raise RefusedError("QLinearConv with another scale than its input's is not supported")
    zero, scale = (numbers.reshape(-1, 1, 1, 1) for numbers in (of_weight.zero, of_weight.scale))
    weight = ((stored - zero) * scale).astype(np.float32)
    conv, value = convolution(scope, node, attributes, value, weight, bias)
    relu = made.begin_at_zero
    scope.emit(node, replace(conv, relu=relu), value, not_negative=relu, quantized=made.key, whole=True)


def quantize_dynamically(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """DynamicQuantizeLinear: scale and zero point are found from the values, which stay as they are."""
    values, scale, zero = node.output
    scope.notes.append(QUANTIZED)
    scope.views[values] = replace(scope.view(node), quantized=(DYNAMIC, scale.encode()), whole=True)
    scope.scales |= {scale: (scale, np.ones(1)), zero: (scale, np.zeros(1))}


def integer_conv(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """ConvInteger of values quantized so: the convolution, which lacks the weight's scale until a Mul brings it."""
    scale = scope.scales.get(node.input[2], ("", None))[0].encode() if scope.has(node, 2) else b""
    stored = scope.tensor(node, 1, "weight")
    zero = scope.tensor(node, 3, "zero point") if scope.has(node, 3) else np.zeros(1, np.uint8)
    if stored.ndim != 4 or stored.dtype.kind not in "iu" or zero.size not in (1, len(stored)):
        raise ModelError(f"{label(node)}: weight {stored.shape} of {stored.dtype} does not fit its zero point")
    value = scope.channels_second(node, pads_allowed=True, quantized_allowed=True)
    if value.quantized != (DYNAMIC, scale):
        raise RefusedError("ConvInteger of other numbers than those of a DynamicQuantizeLinear is not supported")
    weight = (stored.astype(np.float64) - zero.reshape(-1, 1, 1, 1)).astype(np.float32)
    conv, value = convolution(scope, node, attributes, value, weight, None)
    scope.emit(node, conv, value, quantized=(PRODUCT, scale), whole=True)


def multiply(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Mul of a value and a constant, or by a scale that was found from quantized values."""
    at = next((position for position, name in enumerate(node.input) if name in scope.scales), None)
    if at is None or len(node.input) != 2:
        with_constant(scope, node, attributes)
        return
    scale, factor = scope.scales[node.input[at]]
    if node.input[1 - at] in scope.constants:
        more = scope.weights(node, 1 - at, "constant").astype(np.float64)
        if more.size != 1 and more.shape[-3:] != (more.size, 1, 1):
            raise RefusedError(f"a scale of the shape {more.shape} is not supported")
        scope.scales[node.output[0]] = (scale, factor * more.reshape(-1))
        return
    view = scope.view(node, 1 - at)
    if view.quantized != (PRODUCT, scale.encode()):
        raise RefusedError("a scale of other values than those it is multiplied with is not supported")
    scope.emit(node, Affine(factor, np.zeros_like(factor)), replace(view, quantized=None))


def _levels(scope: Scope, node: onnx.NodeProto, scale_at: int, zero_at: int, kind: int = 0) -> _Levels:
    """Return scale and zero point out of a node's inputs; a zero point that is left out is 0."""
    scale = scope.weights(node, scale_at, "scale").astype(np.float64).reshape(-1)
    stored = scope.tensor(node, zero_at, "zero point") if scope.has(node, zero_at) else None
    if stored is None:
        stored = np.zeros(1, DTYPES.get(kind, np.uint8))
    if (scale <= 0).any() or stored.dtype.kind not in "iu" or stored.size not in (1, scale.size):
        raise RefusedError(f"{scale.size} scales with {stored.size} zero points of {stored.dtype} are not supported")
    zero = stored.astype(np.float64).reshape(-1)
    return _Levels(scale, zero, bool((zero == np.iinfo(stored.dtype).min).all()))
