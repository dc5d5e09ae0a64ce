"""What does not compute: values that go through, casts, axes and channels in another order, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx

from engine.errors import ModelError
from engine.onnx.graph import computed, read_node
from engine.onnx.operators import Budget
from engine.onnx.operators.value import cast_type
from engine.onnx.operators.windows import MAX_PADS
from engine.onnx.scope import FLOATS, RefusedError, Scope, label
from engine.onnx.view import MOST_CHANNELS, PRODUCT, View, rearranged
from engine.ops import Array, Pad

_HOLD_A_BYTE = tuple(
    getattr(onnx.TensorProto, name) for name in ("UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
)


def same(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Identity, Dropout at inference: the value goes through."""
    if node.op_type == "Dropout" and scope.has(node, 2) and bool(scope.tensor(node, 2, "training_mode").any()):
        raise RefusedError("Dropout in training mode is not supported")
    scope.views[node.output[0]] = scope.view(node)
    scope.unavailable.update(name for name in node.output[1:] if name)


def cast(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Cast between numbers that hold the same values."""
    view, kind = scope.view(node), cast_type(attributes["to"])
    if kind not in FLOATS and not view.whole:
        raise RefusedError("a Cast of computed values to whole numbers is not supported")
    if kind not in (*FLOATS, *_HOLD_A_BYTE):
        raise RefusedError("a Cast to a type that does not hold 0 to 255 is not supported")
    if view.quantized and view.quantized[0] != PRODUCT:
        raise RefusedError("a Cast of quantized values is not supported")
    scope.views[node.output[0]] = replace(view, whole=kind not in FLOATS)


def transpose(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Transpose: the axes are in another order from here on, nothing is moved."""
    view = scope.view(node)
    order = list(attributes.get("perm", range(len(view.axes))[::-1]))
    if sorted(order) != list(range(len(view.axes))):
        raise RefusedError(f"Transpose with perm {order} of a {len(view.axes)}-dimensional value is not supported")
    scope.views[node.output[0]] = replace(view, axes="".join(view.axes[axis] for axis in order))


def rearrange(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Whatever turns the image's channels or its axes: Gather, Slice, Split, Squeeze, Unsqueeze, Reshape."""
    reorder(scope, node, [scope.view(node)])


def reorder(scope: Scope, node: onnx.NodeProto, views: Sequence[View]) -> None:
    """Read a node that puts channels of the image in another order; refuses one that does anything else."""
    read = read_node(node, scope.file)
    reason = f"this {node.op_type} is not supported, only one of the image's channels or axes"
    behind = range(len(views), len(node.input))
    constants = [scope.tensor(node, at, "input") if scope.has(node, at) else None for at in behind]

    def run(probes: tuple[Array, ...]) -> list[Array]:
        try:
            budget = Budget(sum(one.size for one in probes), value=1, growth=MOST_CHANNELS)
            outputs = computed(read, (*probes, *constants), budget)
        except ModelError:  # rows or columns are meant, of which another image may have more
            raise RefusedError(reason) from None
        return [outputs[name] for name in node.output if name]

    if any(any(view.pads) for view in views):
        raise RefusedError(f"{node.op_type} of padded values is not supported")
    found = rearranged(views, run, scope.sides)
    if found is None:
        raise RefusedError(reason)
    scope.views.update(zip((name for name in node.output if name), found, strict=True))


def pad(scope: Scope, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Pad: zeros are left to the convolution behind it, edges and reflections are an operator of the engine."""
    view, mode = scope.view(node), attributes.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise RefusedError(f"Pad with mode {mode!r} is not supported")
    amounts = attributes["pads"] if "pads" in attributes else scope.tensor(node, 1, "pads").reshape(-1).tolist()
    if "value" in attributes:
        fill = float(attributes["value"])
    else:
        fill = float(scope.tensor(node, 2, "constant_value").reshape(-1)[0]) if scope.has(node, 2) else 0.0
    count = len(view.axes)
    axes = scope.tensor(node, 3, "axes").reshape(-1).tolist() if scope.has(node, 3) else list(range(count))
    if not all(isinstance(number, int) for number in (*amounts, *axes)):
        raise ModelError(f"{label(node)}: its pads or axes are not whole numbers")
    if len(amounts) != 2 * len(axes) or any(not -count <= axis < count for axis in axes):
        raise ModelError(f"{label(node)}: {len(amounts)} pads for {len(axes)} axes do not fit a value of {count} axes")
    sides: dict[str, list[int]] = {"H": [0, 0], "W": [0, 0]}
    for axis, begin, end in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True):
        letter = view.axes[axis]
        if (begin or end) and (letter not in sides or min(begin, end) < 0 or (mode == "constant" and fill != 0)):
            raise RefusedError("only a Pad of zeros, edges or reflections on the four sides is supported")
        if letter in sides:
            sides[letter] = [sides[letter][0] + begin, sides[letter][1] + end]
    pads = (sides["H"][0], sides["W"][0], sides["H"][1], sides["W"][1])
    if max(pads) > MAX_PADS:
        raise ModelError(f"{label(node)}: pads are {pads}, more than {MAX_PADS}")
    if not any(pads):
        scope.views[node.output[0]] = view
    elif mode == "constant":
        view = scope.activation(node, pads_allowed=True)
        top, left, bottom, right = (old + new for old, new in zip(view.pads, pads, strict=True))
        scope.views[node.output[0]] = replace(view, pads=(top, left, bottom, right))
    else:
        view = scope.activation(node)
        scope.emit(node, Pad(pads, mode), view, not_negative=view.not_negative)
