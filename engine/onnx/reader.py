"""An ONNX file as a list of the engine's operators.

Exporters write the same network in many ways. What does not change the result is resolved here: constants, Identity,
Dropout, Cast, the order of axes and of the image's channels (nothing is moved), zeros padded before a convolution, bias
as a separate Add, BatchNormalization behind a convolution, Relu behind a convolution. Branches may meet again in an
Add, a Sum or a Concat of channels. An operator that the engine does not have is not an error as long as nothing behind
it is asked for: a classifier is simply left in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError, printable
from engine.fuse import fused
from engine.graph import Graph, Node, Rejected, label_of
from engine.onnx.constants import Constants
from engine.onnx.file import OnnxFile, attributes_of, name_of, open_onnx, operator_of
from engine.onnx.graph import computed, read_node
from engine.onnx.operators import DTYPES, Budget, UnsupportedError
from engine.onnx.operators.value import cast_type
from engine.onnx.operators.windows import MAX_PADS, window_of
from engine.onnx.view import MOST_CHANNELS, Channel, View, rearranged
from engine.ops import Add, Affine, Array, AveragePool, Concat, Conv, MaxPool, Operator, Pad, Relu
from kernels.geometry import Window

QUANTIZED = "the model's activations are quantized too: here they are neither rounded nor cut off above"
"""What is to be known of a model with QuantizeLinear between its operators."""

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
_HOLD_A_BYTE = tuple(
    getattr(onnx.TensorProto, name) for name in ("UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
)
_NO_PADS = (0, 0, 0, 0)

# In place of a scale: values that were rounded by one found from themselves, and products of these with weights.
_DYNAMIC, _PRODUCT = b"dynamic", b"product"


def read_onnx(path: str | Path) -> Graph:
    """Read an ONNX file.

    Weights come out in float32 (float64 where the file has that or where a BatchNormalization was folded in), in the
    layout of ``kernels``. Only the weights of operators that the engine runs are converted.

    Raises ModelError when the file is missing, not ONNX, or its weights are missing, misshapen or not finite.
    """
    file = open_onnx(path)
    reader = _Reader(file)
    for node in file.graph.node:
        reader.add(node)
    metadata = {entry.key: entry.value for entry in file.model.metadata_props}
    # A part of a model that is kept as a file of its own says there what was to be known of the whole.
    notes = [*reader.notes, *([metadata["note"]] if "note" in metadata else [])]
    return Graph(
        input=reader.input,
        nodes=fused(reader.nodes),
        rejected=tuple(reader.rejected),
        metadata=metadata,
        operators=dict(Counter(node.op_type for node in file.graph.node)),
        notes=tuple(dict.fromkeys(notes)),
        left_out=reader.left_out,
    )


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


class _RefusedError(Exception):
    """The engine cannot run a node, for the reason given."""


class _Reader:
    """Turns the file's nodes into the engine's, one after the other."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.constants = Constants(file)
        graph = file.graph
        if graph.sparse_initializer:
            raise ModelError(f"{file.label}: sparse weights are not supported")
        self.nodes: list[Node] = []
        self.rejected: list[Rejected] = []
        self.notes: list[str] = []
        self.left_out = 0
        self._unavailable: set[str] = set()
        # Until IR version 3 the weights are listed among the inputs too.
        inputs = [value for value in graph.input if value.name not in self.constants]
        if not inputs:
            raise ModelError(f"{file.label}: the network has no image input")
        self.input = inputs[0].name
        self._unavailable.update(value.name for value in inputs[1:])
        axes, self._sides = _input_layout(inputs[0], file)
        whole = inputs[0].type.tensor_type.elem_type not in (0, *_FLOATS)
        image = View(self.input, axes, tuple(Channel(source) for source in range(3)), whole=whole)
        self.views = {self.input: image}
        self._names: dict[str, str] = {}
        self._padded: dict[str, str] = {}
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        # Scales and zero points that are found from the values at hand: of which scale, times what.
        self._scales: dict[str, tuple[str, Array]] = {}
        self._made: dict[tuple[Channel, ...], str] = {image.channels or (): self.input}

    def add(self, node: onnx.NodeProto) -> None:
        """Read one node; what cannot be run is noted in ``rejected``."""
        for name in node.output:
            if name and (name in self.views or name in self.constants or name in self._scales):
                raise ModelError(f"{_label(node)}: its output {name!r} is there already")
        try:
            if any(name and name in self._unavailable for name in node.input):
                # What stands behind a rejected node is left out with it, without a reason of its own.
                self._leave_out(node)
                return
            if self.constants.takes(node):
                return
            self._names.update(dict.fromkeys(node.output, name_of(node)))
            handler = _HANDLERS.get(operator_of(node))
            if handler is None:
                raise _RefusedError(f"operator {operator_of(node)} is not supported")
            handler(self, node, attributes_of(node, self.file.array))
        except (_RefusedError, UnsupportedError) as refusal:
            self._leave_out(node)
            reason = printable(str(refusal)).removeprefix(f"{_label(node)}: ")
            self.rejected.append(Rejected(_label(node), node.output[0] if node.output else "", reason))
        except ModelError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise ModelError(f"{_label(node)}: {printable(str(error))}") from None
        except (TypeError, AttributeError, IndexError, KeyError):
            # An attribute of another kind than the operator's, or an output that is not there.
            raise ModelError(f"{_label(node)}: its attributes, inputs or outputs are damaged") from None

    def _leave_out(self, node: onnx.NodeProto) -> None:
        self._unavailable.update(name for name in node.output if name)
        self.left_out += node.op_type in ("Conv", "ConvInteger", "FusedConv", "QLinearConv")

    # ---- values ----

    def _free(self, name: str) -> str:
        """Return a name for a value that the file has none for."""
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name

    def _view(self, node: onnx.NodeProto, position: int = 0) -> View:
        """Return what an input of a node is."""
        name = node.input[position] if position < len(node.input) else ""
        if name in self.constants:
            raise _RefusedError(f"its input {name!r} is a constant")
        if name in self._scales:
            raise _RefusedError(f"its input {name!r} is found from quantized values")
        if name not in self.views:
            raise ModelError(f"{_label(node)}: input {name!r} is not produced by any node before it")
        return self.views[name]

    def _activation(
        self, node: onnx.NodeProto, position: int = 0, *, pads_allowed: bool = False, quantized_allowed: bool = False
    ) -> View:
        """Return an input of a node as a value of the engine, which is made where there is none yet."""
        view = self._view(node, position)
        if view.channels is not None:
            axes = view.axes
            if len(view.channels) == 1:  # there is no letter for it: a size of 1 in its place does
                axes = {"NNHW": "NCHW", "NHWN": "NHWC"}.get(axes, axes)
            name = self._channels(node.input[position], view.channels)
            view = replace(view, name=name, axes=axes, channels=None)
        if view.quantized and not quantized_allowed:
            raise _RefusedError(f"{node.op_type} of quantized values is not supported")
        if any(view.pads) and not pads_allowed:
            if node.input[position] not in self._padded:
                padded = self._free(f"{node.input[position]}/padded")
                self.nodes.append(Node(padded, Pad(view.pads, "constant"), view.name, padded))
                self._padded[node.input[position]] = padded
            view = replace(view, name=self._padded[node.input[position]], pads=_NO_PADS)
        return view

    def _channels(self, name: str, channels: tuple[Channel, ...]) -> str:
        """Return the engine's value with some of the image's channels, scaled and shifted; called ``name`` if new."""
        if channels not in self._made:
            scale, shift = (np.array([getattr(one, what) for one in channels]) for what in ("scale", "shift"))
            operator: Operator = Affine(scale, shift)
            if [one.source for one in channels] != [0, 1, 2]:
                weight = np.zeros((1, 1, 3, len(channels)))
                for at, one in enumerate(channels):
                    weight[0, 0, one.source, at] = one.scale
                operator = Conv(weight, shift, Window((1, 1)))
            self.nodes.append(Node(self._names[name], operator, self.input, name))
            self._made[channels] = name
        return self._made[channels]

    def _channels_second(self, node: onnx.NodeProto, **allowed: bool) -> View:
        view = self._activation(node, **allowed)
        if view.axes != "NCHW":
            raise _RefusedError(f"its input has the axes {view.axes}, expected NCHW")
        return view

    def _tensor(self, node: onnx.NodeProto, position: int, role: str) -> Array:
        """Return a constant input as an array; ``role`` is what messages call it."""
        name = node.input[position] if position < len(node.input) else ""
        if name not in self.constants:
            if name in self.views:
                raise _RefusedError(f"its {role} is computed, not a constant")
            raise ModelError(f"{_label(node)}: {role} {name!r} is missing from the file")
        return self.constants.value(name, f"{_label(node)}: {role} {name!r}")

    def _weights(self, node: onnx.NodeProto, position: int, role: str) -> Array:
        """Return a constant input as finite floating-point numbers."""
        array = self._tensor(node, position, role)
        # bfloat16 is of a kind of its own; what is left out are integers, complex numbers and text.
        if array.dtype.kind not in "fV":
            raise ModelError(f"{_label(node)}: {role} has the type {array.dtype}, expected floating point")
        dtype = np.float64 if array.dtype == np.float64 else np.float32
        try:
            values = array.astype(dtype)
        except (TypeError, ValueError):
            raise ModelError(f"{_label(node)}: {role} has the type {array.dtype}, expected floating point") from None
        if not np.isfinite(values).all():
            count = int(values.size - np.isfinite(values).sum())
            raise ModelError(f"{_label(node)}: {role} has {count} values that are infinite or not a number")
        return values

    def _has(self, node: onnx.NodeProto, position: int) -> bool:
        """Say whether an optional input is given."""
        return len(node.input) > position and bool(node.input[position])

    def _emit(self, node: onnx.NodeProto, operator: Operator, input: View, *others: View, **known: Any) -> None:
        self._run(name_of(node), operator, node.output[0], input, *others, **known)

    def _run(self, name: str, operator: Operator, output: str, input: View, *others: View, **known: Any) -> None:
        """Append a node of the engine."""
        self.nodes.append(Node(name, operator, input.name, output, tuple(other.name for other in others)))
        self.views[output] = View(output, input.axes, **known)

    # ---- operators ----

    def _same(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Identity, Dropout at inference: the value goes through."""
        if node.op_type == "Dropout" and self._has(node, 2) and bool(self._tensor(node, 2, "training_mode").any()):
            raise _RefusedError("Dropout in training mode is not supported")
        self.views[node.output[0]] = self._view(node)
        self._unavailable.update(name for name in node.output[1:] if name)

    def _cast(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Cast between numbers that hold the same values."""
        view, kind = self._view(node), cast_type(attributes["to"])
        if kind not in _FLOATS and not view.whole:
            raise _RefusedError("a Cast of computed values to whole numbers is not supported")
        if kind not in (*_FLOATS, *_HOLD_A_BYTE):
            raise _RefusedError("a Cast to a type that does not hold 0 to 255 is not supported")
        if view.quantized and view.quantized[0] != _PRODUCT:
            raise _RefusedError("a Cast of quantized values is not supported")
        self.views[node.output[0]] = replace(view, whole=kind not in _FLOATS)

    def _transpose(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        view = self._view(node)
        order = list(attributes.get("perm", range(len(view.axes))[::-1]))
        if sorted(order) != list(range(len(view.axes))):
            raise _RefusedError(f"Transpose with perm {order} of a {len(view.axes)}-dimensional value is not supported")
        self.views[node.output[0]] = replace(view, axes="".join(view.axes[axis] for axis in order))

    def _rearrange(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Whatever turns the image's channels or its axes: Gather, Slice, Split, Squeeze, Unsqueeze, Reshape."""
        self._rearranged(node, [self._view(node)])

    def _rearranged(self, node: onnx.NodeProto, views: Sequence[View]) -> None:
        """Read a node that puts channels of the image in another order; refuses one that does anything else."""
        read = read_node(node, self.file)
        reason = f"this {node.op_type} is not supported, only one of the image's channels or axes"
        behind = range(len(views), len(node.input))
        constants = [self._tensor(node, at, "input") if self._has(node, at) else None for at in behind]

        def run(probes: tuple[Array, ...]) -> list[Array]:
            try:
                budget = Budget(sum(one.size for one in probes), value=1, growth=MOST_CHANNELS)
                outputs = computed(read, (*probes, *constants), budget)
            except ModelError:  # rows or columns are meant, of which another image may have more
                raise _RefusedError(reason) from None
            return [outputs[name] for name in node.output if name]

        if any(any(view.pads) for view in views):
            raise _RefusedError(f"{node.op_type} of padded values is not supported")
        found = rearranged(views, run, self._sides)
        if found is None:
            raise _RefusedError(reason)
        self.views.update(zip((name for name in node.output if name), found, strict=True))

    def _pad(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        view, mode = self._view(node), attributes.get("mode", "constant")
        if mode not in ("constant", "reflect", "edge"):
            raise _RefusedError(f"Pad with mode {mode!r} is not supported")
        amounts = attributes["pads"] if "pads" in attributes else self._tensor(node, 1, "pads").reshape(-1).tolist()
        if "value" in attributes:
            fill = float(attributes["value"])
        else:
            fill = float(self._tensor(node, 2, "constant_value").reshape(-1)[0]) if self._has(node, 2) else 0.0
        count = len(view.axes)
        axes = self._tensor(node, 3, "axes").reshape(-1).tolist() if self._has(node, 3) else list(range(count))
        if not all(isinstance(number, int) for number in (*amounts, *axes)):
            raise ModelError(f"{_label(node)}: its pads or axes are not whole numbers")
        if len(amounts) != 2 * len(axes) or any(not -count <= axis < count for axis in axes):
            raise ModelError(
                f"{_label(node)}: {len(amounts)} pads for {len(axes)} axes do not fit a value of {count} axes"
            )
        sides: dict[str, list[int]] = {"H": [0, 0], "W": [0, 0]}
        for axis, begin, end in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True):
            letter = view.axes[axis]
            if (begin or end) and (letter not in sides or min(begin, end) < 0 or (mode == "constant" and fill != 0)):
                raise _RefusedError("only a Pad of zeros, edges or reflections on the four sides is supported")
            if letter in sides:
                sides[letter] = [sides[letter][0] + begin, sides[letter][1] + end]
        pads = (sides["H"][0], sides["W"][0], sides["H"][1], sides["W"][1])
        if max(pads) > MAX_PADS:
            raise ModelError(f"{_label(node)}: pads are {pads}, more than {MAX_PADS}")
        if not any(pads):
            self.views[node.output[0]] = view
        elif mode == "constant":
            view = self._activation(node, pads_allowed=True)
            top, left, bottom, right = (old + new for old, new in zip(view.pads, pads, strict=True))
            self.views[node.output[0]] = replace(view, pads=(top, left, bottom, right))
        else:
            view = self._activation(node)
            self._emit(node, Pad(pads, mode), view, not_negative=view.not_negative)

    def _conv(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        weight = self._weights(node, 1, "weight")
        bias = self._weights(node, 2, "bias") if self._has(node, 2) else None
        value = self._channels_second(node, pads_allowed=True)
        self._emit(node, *self._convolution(node, attributes, value, weight, bias))

    def _convolution(
        self, node: onnx.NodeProto, attributes: Mapping[str, Any], value: View, weight: Array, bias: Array | None
    ) -> tuple[Conv, View]:
        """Return the convolution of a node, with zeros padded before it taken in, and what it is of."""
        if weight.ndim != 4:
            raise ModelError(f"{_label(node)}: weight has the shape {weight.shape}, expected four dimensions")
        filters, _, height, width = weight.shape
        group = int(attributes.get("group", 1))
        if 0 in weight.shape or group < 1 or filters % group:
            raise ModelError(f"{_label(node)}: weight {weight.shape} does not fit into {group} groups")
        if bias is not None and bias.shape != (filters,):
            raise ModelError(
                f"{_label(node)}: bias has the shape {bias.shape}, weight {weight.shape} expects {(filters,)}"
            )
        if tuple(attributes.get("kernel_shape", (height, width))) != (height, width):
            raise ModelError(
                f"{_label(node)}: kernel_shape {tuple(attributes['kernel_shape'])} does not fit weight {weight.shape}"
            )
        window = window_of({**attributes, "kernel_shape": (height, width)})
        if any(value.pads):
            if window.auto_pad.startswith("SAME"):
                raise _RefusedError("a Pad before a Conv with auto_pad SAME is not supported")
            pads = tuple(outer + inner for outer, inner in zip(value.pads, window.pads, strict=True))
            window = replace(window, pads=pads, auto_pad="NOTSET")  # type: ignore[arg-type]  # four, as before
        kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        return Conv(kernel, bias, window, group), replace(value, pads=_NO_PADS)

    def _fused_conv(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Conv, the sum with another value where there is one, Relu: as ONNX Runtime writes them when it optimizes."""
        activation = attributes.get("activation", "")
        if activation not in ("", "Relu"):
            raise _RefusedError(f"FusedConv with the activation {activation!r} is not supported")
        weight = self._weights(node, 1, "weight")
        bias = self._weights(node, 2, "bias") if self._has(node, 2) else None
        value = self._channels_second(node, pads_allowed=True)
        other = self._activation(node, 3) if self._has(node, 3) else None
        if other is not None and other.axes != value.axes:
            raise _RefusedError(f"its inputs have the axes {value.axes} and {other.axes}")
        output, name = node.output[0], name_of(node)
        steps: list[tuple[Operator, tuple[View, ...]]] = [
            (self._convolution(node, attributes, value, weight, bias)[0], ())
        ]
        steps += [(Add(), (other,))] if other is not None else []
        steps += [(Relu(), ())] if activation else []
        value = replace(value, pads=_NO_PADS)
        for number, (operator, others) in enumerate(steps, 1):
            made = output if number == len(steps) else self._free(f"{output}/{number}")
            self._run(name, operator, made, value, *others)
            value = self.views[made]
        self.views[output] = replace(value, not_negative=bool(activation))

    def _pool(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        value = self._channels_second(node, quantized_allowed=node.op_type == "MaxPool")
        known = {"not_negative": value.not_negative, "quantized": value.quantized, "whole": value.whole}
        if "kernel_shape" not in attributes:
            raise ModelError(f"{_label(node)}: kernel_shape is missing")
        if len(attributes["kernel_shape"]) != 2:
            raise _RefusedError(f"a {node.op_type} over {len(attributes['kernel_shape'])} dimensions is not supported")
        window = window_of(attributes)
        if node.op_type == "MaxPool":
            self._emit(node, MaxPool(window), value, **known)
        else:
            self._emit(node, AveragePool(window, bool(attributes.get("count_include_pad", 0))), value, **known)
        self._unavailable.update(name for name in node.output[1:] if name)

    def _relu(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        self._emit(node, Relu(), self._activation(node), not_negative=True)

    def _batch_normalization(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        if attributes.get("training_mode", 0):
            raise _RefusedError("BatchNormalization in training mode is not supported")
        value = self._channels_second(node)
        roles = ("scale", "B", "input_mean", "input_var")
        scale, shift, mean, variance = (
            self._weights(node, position, role).astype(np.float64) for position, role in enumerate(roles, 1)
        )
        if scale.ndim != 1 or not scale.shape == shift.shape == mean.shape == variance.shape:
            raise ModelError(f"{_label(node)}: scale, B, input_mean and input_var differ in shape")
        if (variance + attributes.get("epsilon", 1e-5) <= 0).any():
            raise ModelError(f"{_label(node)}: input_var is negative")
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        self._emit(node, Affine(factor, shift - mean * factor), value)

    # ---- numbers of 8 bits ----

    def _quantize(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """QuantizeLinear of a computed value: all that stays of it is a lower limit of 0, which stands for a ReLU."""
        levels = self._levels(node, 1, 2, int(attributes.get("output_dtype", 0)))
        self.notes.append(QUANTIZED)
        view = self._view(node)
        if view.channels is not None or view.not_negative or not levels.begin_at_zero:
            self.views[node.output[0]] = replace(view, quantized=levels.key, whole=True)
        else:
            known = {"not_negative": True, "quantized": levels.key, "whole": True}
            self._emit(node, Relu(), self._activation(node), **known)

    def _dequantize(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """DequantizeLinear of a computed value, the inverse of the QuantizeLinear before it; or of an image."""
        levels, view = self._levels(node, 1, 2), self._view(node)
        if view.quantized == levels.key:
            self.views[node.output[0]] = replace(view, quantized=None, whole=False)
        elif view.quantized is None and view.channels is not None and view.whole and levels.scale.size == 1:
            self.views[node.output[0]] = _scaled(view, levels.scale, -levels.zero * levels.scale)
        else:
            raise _RefusedError(
                "DequantizeLinear with other numbers than the QuantizeLinear before it is not supported"
            )

    def _quantized_conv(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """QLinearConv: the convolution of what its 8-bit numbers stand for."""
        given, of_weight, made = (self._levels(node, at, at + 1) for at in (1, 4, 6))
        stored = self._tensor(node, 3, "weight")
        if stored.ndim != 4 or stored.dtype.kind not in "iu" or of_weight.scale.size not in (1, len(stored)):
            raise ModelError(f"{_label(node)}: weight {stored.shape} of {stored.dtype} does not fit its scale")
        bias = None
        if self._has(node, 8):
            bias = self._tensor(node, 8, "bias") * (given.scale * of_weight.scale)
        value = self._channels_second(node, pads_allowed=True, quantized_allowed=True)
        if value.quantized != given.key:
            raise _RefusedError("QLinearConv with another scale than its input's is not supported")
        zero, scale = (numbers.reshape(-1, 1, 1, 1) for numbers in (of_weight.zero, of_weight.scale))
        weight = ((stored - zero) * scale).astype(np.float32)
        conv, value = self._convolution(node, attributes, value, weight, bias)
        relu = made.begin_at_zero
        self._emit(node, replace(conv, relu=relu), value, not_negative=relu, quantized=made.key, whole=True)

    def _quantize_dynamically(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """DynamicQuantizeLinear: scale and zero point are found from the values, which stay as they are."""
        values, scale, zero = node.output
        self.notes.append(QUANTIZED)
        self.views[values] = replace(self._view(node), quantized=(_DYNAMIC, scale.encode()), whole=True)
        self._scales |= {scale: (scale, np.ones(1)), zero: (scale, np.zeros(1))}

    def _integer_conv(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """ConvInteger of values quantized so: the convolution, which lacks the weight's scale until a Mul brings it."""
        scale = self._scales.get(node.input[2], ("", None))[0].encode() if self._has(node, 2) else b""
        stored = self._tensor(node, 1, "weight")
        zero = self._tensor(node, 3, "zero point") if self._has(node, 3) else np.zeros(1, np.uint8)
        if stored.ndim != 4 or stored.dtype.kind not in "iu" or zero.size not in (1, len(stored)):
            raise ModelError(f"{_label(node)}: weight {stored.shape} of {stored.dtype} does not fit its zero point")
        value = self._channels_second(node, pads_allowed=True, quantized_allowed=True)
        if value.quantized != (_DYNAMIC, scale):
            raise _RefusedError("ConvInteger of other numbers than those of a DynamicQuantizeLinear is not supported")
        weight = (stored.astype(np.float64) - zero.reshape(-1, 1, 1, 1)).astype(np.float32)
        conv, value = self._convolution(node, attributes, value, weight, None)
        self._emit(node, conv, value, quantized=(_PRODUCT, scale), whole=True)

    def _multiply(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Mul of a value and a constant, or by a scale that was found from quantized values."""
        at = next((position for position, name in enumerate(node.input) if name in self._scales), None)
        if at is None or len(node.input) != 2:
            self._arithmetic(node, attributes)
            return
        scale, factor = self._scales[node.input[at]]
        if node.input[1 - at] in self.constants:
            more = self._weights(node, 1 - at, "constant").astype(np.float64)
            if more.size != 1 and more.shape[-3:] != (more.size, 1, 1):
                raise _RefusedError(f"a scale of the shape {more.shape} is not supported")
            self._scales[node.output[0]] = (scale, factor * more.reshape(-1))
            return
        view = self._view(node, 1 - at)
        if view.quantized != (_PRODUCT, scale.encode()):
            raise _RefusedError("a scale of other values than those it is multiplied with is not supported")
        self._emit(node, Affine(factor, np.zeros_like(factor)), replace(view, quantized=None))

    def _levels(self, node: onnx.NodeProto, scale_at: int, zero_at: int, kind: int = 0) -> _Levels:
        """Return scale and zero point out of a node's inputs; a zero point that is left out is 0."""
        scale = self._weights(node, scale_at, "scale").astype(np.float64).reshape(-1)
        stored = self._tensor(node, zero_at, "zero point") if self._has(node, zero_at) else None
        if stored is None:
            stored = np.zeros(1, DTYPES.get(kind, np.uint8))
        if (scale <= 0).any() or stored.dtype.kind not in "iu" or stored.size not in (1, scale.size):
            raise _RefusedError(
                f"{scale.size} scales with {stored.size} zero points of {stored.dtype} are not supported"
            )
        zero = stored.astype(np.float64).reshape(-1)
        return _Levels(scale, zero, bool((zero == np.iinfo(stored.dtype).min).all()))

    # ---- branches and arithmetic ----

    def _add(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Add: of two branches, or of a value and a constant."""
        if any(name in self.constants for name in node.input):
            self._arithmetic(node, attributes)
        else:
            self._sum(node, attributes)

    def _sum(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        self._join(node, Add())

    def _concat(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        views = [self._view(node, position) for position in range(len(node.input))]
        if views and all(view.channels is not None for view in views):
            self._rearranged(node, views)
            return
        values = [self._activation(node, position) for position in range(len(node.input))]
        axis = int(attributes.get("axis", 1))
        if values and not (-4 <= axis < 4 and values[0].axes[axis] == "C"):
            raise _RefusedError(f"Concat along axis {axis} is not supported, only along the channels")
        self._join(node, Concat())

    def _join(self, node: onnx.NodeProto, junction: Add | Concat) -> None:
        """Read a node in which branches meet."""
        first, *others = (self._activation(node, position) for position in range(max(len(node.input), 1)))
        for other in others:
            if other.axes != first.axes:
                raise _RefusedError(f"its inputs have the axes {first.axes} and {other.axes}")
        if others:
            self._emit(node, junction, first, *others)
        else:
            self.views[node.output[0]] = first

    def _arithmetic(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        """Add, Sub, Mul or Div of a value and a constant number for each channel."""
        constant_at = next((i for i, name in enumerate(node.input) if name in self.constants), None)
        if constant_at is None or len(node.input) != 2:
            raise _RefusedError(f"{node.op_type} of two computed values is not supported")
        if constant_at == 0 and node.op_type == "Div":
            raise _RefusedError("Div of a constant by a computed value is not supported")
        view = self._view(node, 1 - constant_at)
        if view.whole:
            raise _RefusedError(f"{node.op_type} of whole numbers is not supported")
        numbers = self._of_channels(node, constant_at, view, attributes)
        ones, zeros = np.ones_like(numbers), np.zeros_like(numbers)
        scale, shift = {
            "Add": (ones, numbers),
            "Sub": (ones, -numbers) if constant_at == 1 else (-ones, numbers),
            "Mul": (numbers, zeros),
            "Div": (1 / np.where(numbers == 0, np.nan, numbers), zeros),
        }[node.op_type]
        if not np.isfinite(scale).all():
            raise ModelError(f"{_label(node)}: divides by zero")
        if view.channels is not None:
            self.views[node.output[0]] = _scaled(view, scale, shift)
        else:
            self._emit(node, Affine(scale, shift), self._activation(node, 1 - constant_at))

    def _of_channels(self, node: onnx.NodeProto, position: int, view: View, attributes: Mapping[str, Any]) -> Array:
        """Return a constant as one number for each channel, or for all; it may have the same for all pixels."""
        constant = self._weights(node, position, "constant").astype(np.float64)
        count = len(view.axes)
        if "axis" in attributes:  # before opset 7 the constant's axes began at this one
            behind = count - int(attributes["axis"]) % count - constant.ndim
            constant = constant.reshape(constant.shape + (1,) * behind)
        if constant.ndim > count:
            raise _RefusedError(f"{node.op_type} with a constant of shape {constant.shape} is not supported")
        constant = constant.reshape((1,) * (count - constant.ndim) + constant.shape)
        for axis, letter in enumerate(view.axes):
            if letter != "C" and constant.shape[axis] != 1:
                first = constant.take([0], axis=axis)
                if letter == "N" or not (constant == first).all():
                    raise _RefusedError(
                        f"{node.op_type} with a constant that differs from pixel to pixel is not supported"
                    )
                constant = first
        return constant.reshape(-1)


_HANDLERS: dict[str, Callable[[_Reader, onnx.NodeProto, Mapping[str, Any]], None]] = {
    "Add": _Reader._add,
    "AveragePool": _Reader._pool,
    "BatchNormalization": _Reader._batch_normalization,
    "Cast": _Reader._cast,
    "Concat": _Reader._concat,
    "Conv": _Reader._conv,
    "ConvInteger": _Reader._integer_conv,
    "DequantizeLinear": _Reader._dequantize,
    "Div": _Reader._arithmetic,
    "Dropout": _Reader._same,
    "DynamicQuantizeLinear": _Reader._quantize_dynamically,
    "Gather": _Reader._rearrange,
    "GatherND": _Reader._rearrange,
    "Identity": _Reader._same,
    "MaxPool": _Reader._pool,
    "Mul": _Reader._multiply,
    "Pad": _Reader._pad,
    "QLinearConv": _Reader._quantized_conv,
    "QuantizeLinear": _Reader._quantize,
    "Relu": _Reader._relu,
    "Reshape": _Reader._rearrange,
    "Slice": _Reader._rearrange,
    "Split": _Reader._rearrange,
    "Squeeze": _Reader._rearrange,
    "Sub": _Reader._arithmetic,
    "Sum": _Reader._sum,
    "Transpose": _Reader._transpose,
    "Unsqueeze": _Reader._rearrange,
    "com.microsoft.FusedConv": _Reader._fused_conv,
}
"""By operator; not the reader's own, which would be a circle that keeps the file in memory."""


def _scaled(view: View, scale: Array, shift: Array) -> View:
    """Return a view of the image's channels, each times a number plus another."""
    channels = view.channels or ()
    if not {scale.size, shift.size} <= {1, len(channels)}:
        raise ValueError(f"input has {len(channels)} channels, the constant has {max(scale.size, shift.size)} values")
    numbers = zip(channels, np.broadcast_to(scale, len(channels)), np.broadcast_to(shift, len(channels)), strict=True)
    scaled = tuple(Channel(one.source, float(one.scale * a), float(one.shift * a + b)) for one, a, b in numbers)
    return replace(view, channels=scaled, whole=False)


def _label(node: onnx.NodeProto) -> str:
    return label_of(node.op_type, name_of(node))


def _input_layout(value: onnx.ValueInfoProto, file: OnnxFile) -> tuple[str, tuple[int, int]]:
    """Return the order of the image input's axes, and its height and width, 0 where they are open."""
    kind = value.type.tensor_type
    sizes = [dimension.dim_value for dimension in kind.shape.dim]
    axes = ""
    if len(sizes) == 4 or not kind.HasField("shape"):
        axes = "NCHW"
        if sizes and 3 in (sizes[1], sizes[3]) and sizes[1] != sizes[3]:
            axes = "NCHW" if sizes[1] == 3 else "NHWC"
        elif _turned_by(value.name, file) == [0, 3, 1, 2]:
            axes = "NHWC"
        elif not sizes and _turned_by(value.name, file) == [2, 0, 1]:
            axes = "HWC"
    elif len(sizes) == 3 and 3 in (sizes[0], sizes[2]) and sizes[0] != sizes[2]:
        axes = "CHW" if sizes[0] == 3 else "HWC"
    elif len(sizes) == 3 and _turned_by(value.name, file) == [2, 0, 1]:
        axes = "HWC"
    if not axes:
        raise ModelError(
            f"{file.label}: the image input {value.name!r} has {len(sizes)} dimensions, expected 4, or 3 of which one "
            "is the colors'"
        )
    sides = [sizes[axes.index(letter)] if sizes else 0 for letter in "HW"]
    return axes, (sides[0], sides[1])


def _turned_by(name: str, file: OnnxFile) -> list[int]:
    """Return the order that the first Transpose gives the image's axes, behind operators that leave them."""
    names = {name}
    for node in file.graph.node:
        if names.isdisjoint(node.input):
            continue
        if node.op_type == "Transpose":
            order = [attribute.ints for attribute in node.attribute if attribute.name == "perm"]
            return list(order[0]) if order else []
        if node.op_type in ("Add", "Cast", "DequantizeLinear", "Div", "Identity", "Mul", "QuantizeLinear", "Sub"):
            names.update(node.output)
    return []
