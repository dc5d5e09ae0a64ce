"""An ONNX file as a list of the engine's operators.

Exporters write the same network in many ways. What does not change the result is resolved here: constants, Identity,
Dropout, Cast, Transpose (a value's axes are tracked, nothing is moved), Pad before a convolution, bias as a separate
Add, BatchNormalization behind a convolution, Relu behind a convolution. Branches may meet again in an Add, a Sum or a
Concat of channels. An operator that the engine does not have is not an error as long as nothing behind it is asked for:
a classifier is simply left in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from engine.errors import ModelError
from engine.fuse import fused
from engine.graph import Graph, Node, Rejected, label_of
from engine.onnx.graph import attributes_of, name_of, opset_of, parse_onnx, read_node
from engine.onnx.operators import OPERATORS, Call, UnsupportedError
from engine.onnx.operators.value import constant
from engine.onnx.operators.windows import window_of
from engine.ops import Add, Affine, Array, AveragePool, Concat, Conv, MaxPool, Operator, Relu
from kernels import Cpu


def read_onnx(path: str | Path) -> Graph:
    """Read an ONNX file.

    Weights come out in float32 (float64 where the file has that or where a BatchNormalization was folded in), in the
    layout of ``kernels``. Only the weights of operators that the engine runs are converted.

    Raises ModelError when the file is missing, not ONNX, or its weights are missing, misshapen or not finite.
    """
    path = Path(path)
    model = parse_onnx(path)
    reader = _Reader(path, model)
    for node in model.graph.node:
        reader.add(node)
    return Graph(
        input=reader.input,
        nodes=fused(reader.nodes),
        rejected=tuple(reader.rejected),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        operators=dict(Counter(node.op_type for node in model.graph.node)),
    )


# Where a value of the file comes from: the value of the engine it equals once its axes are put in order.
@dataclass(frozen=True)
class _Activation:
    name: str
    axes: str = "NCHW"
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


class _RefusedError(Exception):
    """The engine cannot run a node, for the reason given."""


class _Reader:
    """Turns the file's nodes into the engine's, one after the other."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        self.path = path
        self.folder = path.resolve().parent
        # Constants: as they are stored, or a function that computes one from others when it is needed.
        self.tensors: dict[str, onnx.TensorProto | Callable[[], Array]] = {
            tensor.name: tensor for tensor in model.graph.initializer
        }
        self.opset = opset_of(model)
        if model.graph.sparse_initializer:
            raise ModelError(f"{path}: sparse weights are not supported")
        self.nodes: list[Node] = []
        self.rejected: list[Rejected] = []
        self._unavailable: set[str] = set()
        # Until IR version 3 the weights are listed among the inputs too.
        inputs = [value for value in model.graph.input if value.name not in self.tensors]
        if not inputs:
            raise ModelError(f"{path}: the network has no image input")
        self.input = inputs[0].name
        self._unavailable.update(value.name for value in inputs[1:])
        self.activations = {self.input: _Activation(self.input, _input_axes(inputs[0], model, path))}
        self._handlers: dict[str, Callable[[onnx.NodeProto, dict[str, Any]], None]] = {
            "Add": self._add,
            "AveragePool": self._pool,
            "BatchNormalization": self._batch_normalization,
            "Cast": self._same,
            "Concat": self._concat,
            "Constant": self._constant,
            "Conv": self._conv,
            "Div": self._arithmetic,
            "Dropout": self._same,
            "Identity": self._same,
            "MaxPool": self._pool,
            "Mul": self._arithmetic,
            "Pad": self._pad,
            "Relu": self._relu,
            "Sub": self._arithmetic,
            "Sum": self._sum,
            "Transpose": self._transpose,
        }

    def add(self, node: onnx.NodeProto) -> None:
        """Read one node; what cannot be run is noted in ``rejected``."""
        handler = self._handlers.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if any(name and name in self._unavailable for name in node.input):
                # What stands behind a rejected node is left out with it, without a reason of its own.
                self._unavailable.update(node.output)
                return
            if handler != self._same and self._is_constant(node):
                self._compute(node)
                return
            if handler is None:
                domain = f"{node.domain}." if node.domain else ""
                raise _RefusedError(f"operator {domain}{node.op_type} is not supported")
            handler(node, attributes_of(node))
        except _RefusedError as refusal:
            self._unavailable.update(node.output)
            self.rejected.append(Rejected(_label(node), node.output[0] if node.output else "", str(refusal)))
        except ModelError:
            raise
        except ValueError as error:
            raise ModelError(f"{_label(node)}: {error}") from None
        except (TypeError, AttributeError, IndexError, KeyError):
            # An attribute of another kind than the operator's, or an output that is not there.
            raise ModelError(f"{_label(node)}: its attributes, inputs or outputs are damaged") from None

    # ---- values ----

    def _activation(self, node: onnx.NodeProto, position: int = 0, *, pads_allowed: bool = False) -> _Activation:
        name = node.input[position] if position < len(node.input) else ""
        if name in self.tensors:
            raise _RefusedError(f"its input {name!r} is a constant")
        if name not in self.activations:
            raise ModelError(f"{_label(node)}: input {name!r} is not produced by any node before it")
        value = self.activations[name]
        if any(value.pads) and not pads_allowed:
            raise _RefusedError("a Pad before an operator other than Conv is not supported")
        return value

    def _channels_second(self, node: onnx.NodeProto, *, pads_allowed: bool = False) -> _Activation:
        value = self._activation(node, pads_allowed=pads_allowed)
        if value.axes != "NCHW":
            raise _RefusedError(f"its input has the axes {value.axes}, expected NCHW")
        return value

    def _tensor(self, node: onnx.NodeProto, position: int, role: str) -> Array:
        """Return a constant input as an array; ``role`` is what messages call it."""
        name = node.input[position] if position < len(node.input) else ""
        if name not in self.tensors:
            if name in self.activations:
                raise _RefusedError(f"its {role} is computed, not a constant")
            raise ModelError(f"{_label(node)}: {role} {name!r} is missing from the file")
        tensor = self.tensors[name]
        try:
            if not isinstance(tensor, onnx.TensorProto):
                return tensor()
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return self._external(tensor, f"{_label(node)}: {role} {name!r}")
            return numpy_helper.to_array(tensor)
        except ModelError:
            raise
        except Exception as error:  # to_array raises many kinds on a damaged tensor
            raise ModelError(f"{_label(node)}: {role} {name!r} cannot be read: {error}") from None

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

    def _external(self, tensor: onnx.TensorProto, what: str) -> Array:
        """Read a tensor's data from its own file, which must lie in the model's folder."""
        info = ExternalDataInfo(tensor)
        location = (self.folder / info.location).resolve()
        if Path(info.location).is_absolute() or not location.is_relative_to(self.folder):
            raise ModelError(f"{what}: its data file {info.location!r} lies outside the model's folder")
        if not location.is_file():
            raise ModelError(f"{what}: its data file {info.location!r} does not exist beside the model")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        expected = int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize
        offset, length = info.offset or 0, info.length if info.length is not None else expected
        with location.open("rb") as file:
            file.seek(offset)
            data = file.read(min(length, expected))
        if length != expected or len(data) != expected:
            found = length if length != expected else len(data)
            raise ModelError(
                f"{what}: {found} bytes in {info.location!r}, expected {expected} for shape {tuple(tensor.dims)}"
            )
        return np.frombuffer(data, dtype.newbyteorder("<")).reshape(tensor.dims)

    def _emit(self, node: onnx.NodeProto, operator: Operator, input: _Activation, *others: _Activation) -> None:
        names = tuple(other.name for other in others)
        self.nodes.append(Node(name_of(node), operator, input.name, node.output[0], names))
        self.activations[node.output[0]] = _Activation(node.output[0], input.axes)

    # ---- constants ----

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        """Say whether a node computes a constant from others, as exporters write shapes and unfolded weights."""
        inputs = [name for name in node.input if name]
        known = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
        return known and bool(inputs) and all(name in self.tensors for name in inputs)

    def _compute(self, node: onnx.NodeProto) -> None:
        """Note how a constant is computed; it may be large, and part of a classifier that nobody asks for."""

        def computed(output: str) -> Array:
            inputs = tuple(self._tensor(node, at, "input") if name else None for at, name in enumerate(node.input))
            read = read_node(node, self.opset)
            outputs, _ = read.operator.forward(Cpu(1), inputs)
            return outputs[read.outputs.index(output)]

        for output in node.output:
            self.tensors[output] = partial(computed, output)

    # ---- operators ----

    def _constant(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = attributes.get("value")
        if not isinstance(value, onnx.TensorProto):
            try:
                value = numpy_helper.from_array(constant(Call(attributes, self.opset)))
            except UnsupportedError as error:
                raise _RefusedError(str(error)) from None
        self.tensors[node.output[0]] = value

    def _same(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        """Identity, Dropout at inference, Cast between numbers: the value goes through."""
        if node.op_type == "Dropout" and len(node.input) > 2 and bool(self._tensor(node, 2, "training_mode")):
            raise _RefusedError("Dropout in training mode is not supported")
        if node.input and node.input[0] in self.tensors:
            self.tensors[node.output[0]] = self.tensors[node.input[0]]
        else:
            self.activations[node.output[0]] = self._activation(node, pads_allowed=True)
        self._unavailable.update(node.output[1:])

    def _transpose(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = self._activation(node, pads_allowed=True)
        order = attributes.get("perm", [3, 2, 1, 0])
        if sorted(order) != [0, 1, 2, 3]:
            raise _RefusedError(f"Transpose with perm {list(order)} of a 4-dimensional value is not supported")
        self.activations[node.output[0]] = replace(value, axes="".join(value.axes[axis] for axis in order))

    def _pad(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = self._activation(node, pads_allowed=True)
        mode = attributes.get("mode", "constant")
        if mode != "constant":
            raise _RefusedError(f"Pad with mode {mode!r} is not supported")
        amounts = attributes["pads"] if "pads" in attributes else self._tensor(node, 1, "pads").tolist()
        if "value" in attributes:
            fill = float(attributes["value"])
        else:
            fill = float(self._tensor(node, 2, "constant_value")) if len(node.input) > 2 and node.input[2] else 0.0
        if len(node.input) > 3 or len(amounts) != 8 or fill != 0 or min(amounts) < 0:
            raise _RefusedError("only a Pad of zeros on the four sides of the image is supported")
        before = dict(zip(value.axes, amounts[:4], strict=True))
        after = dict(zip(value.axes, amounts[4:], strict=True))
        if any(before[axis] or after[axis] for axis in "NC"):
            raise _RefusedError("only a Pad of zeros on the four sides of the image is supported")
        sides = (before["H"], before["W"], after["H"], after["W"])
        pads = tuple(old + new for old, new in zip(value.pads, sides, strict=True))
        self.activations[node.output[0]] = replace(value, pads=pads)

    def _conv(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = self._channels_second(node, pads_allowed=True)
        weight = self._weights(node, 1, "weight")
        if weight.ndim != 4:
            raise ModelError(f"{_label(node)}: weight has the shape {weight.shape}, expected four dimensions")
        bias = self._weights(node, 2, "bias") if len(node.input) > 2 and node.input[2] else None
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
        window = window_of(attributes | {"kernel_shape": (height, width)})
        if any(value.pads):
            if window.auto_pad.startswith("SAME"):
                raise _RefusedError("a Pad before a Conv with auto_pad SAME is not supported")
            pads = tuple(outer + inner for outer, inner in zip(value.pads, window.pads, strict=True))
            window = replace(window, pads=pads, auto_pad="NOTSET")  # type: ignore[arg-type]  # four, as before
        kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        self._emit(node, Conv(kernel, bias, window, group), value)

    def _pool(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        value = self._channels_second(node)
        if "kernel_shape" not in attributes:
            raise ModelError(f"{_label(node)}: kernel_shape is missing")
        if len(attributes["kernel_shape"]) != 2:
            raise _RefusedError(f"a {node.op_type} over {len(attributes['kernel_shape'])} dimensions is not supported")
        window = window_of(attributes)
        if node.op_type == "MaxPool":
            self._emit(node, MaxPool(window), value)
        else:
            self._emit(node, AveragePool(window, bool(attributes.get("count_include_pad", 0))), value)
        self._unavailable.update(node.output[1:])

    def _relu(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._emit(node, Relu(), self._activation(node))

    def _batch_normalization(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
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

    def _add(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        """Add: of two branches, or of a value and a constant."""
        if any(name in self.tensors for name in node.input):
            self._arithmetic(node, attributes)
        else:
            self._sum(node, attributes)

    def _sum(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        self._join(node, Add())

    def _concat(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
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
            self.activations[node.output[0]] = first

    def _arithmetic(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        """Add, Sub, Mul or Div of a value and a constant number for each channel."""
        constant_at = next((i for i, name in enumerate(node.input) if name in self.tensors), None)
        if constant_at is None or len(node.input) != 2:
            raise _RefusedError(f"{node.op_type} of two computed values is not supported")
        if constant_at == 0 and node.op_type == "Div":
            raise _RefusedError("Div of a constant by a computed value is not supported")
        value = self._activation(node, 1 - constant_at)
        constant = self._weights(node, constant_at, "constant").astype(np.float64)
        if "axis" in attributes:  # before opset 7 the constant's axes began at this one
            constant = constant.reshape(constant.shape + (1,) * (4 - int(attributes["axis"]) % 4 - constant.ndim))
        if constant.ndim > 4:
            raise _RefusedError(f"{node.op_type} with a constant of shape {constant.shape} is not supported")
        constant = constant.reshape((1,) * (4 - constant.ndim) + constant.shape)
        if any(size != 1 for axis, size in zip(value.axes, constant.shape, strict=True) if axis != "C"):
            raise _RefusedError(f"{node.op_type} with a constant that differs from pixel to pixel is not supported")
        numbers = constant.reshape(-1)
        ones, zeros = np.ones_like(numbers), np.zeros_like(numbers)
        scale, shift = {
            "Add": (ones, numbers),
            "Sub": (ones, -numbers) if constant_at == 1 else (-ones, numbers),
            "Mul": (numbers, zeros),
            "Div": (1 / np.where(numbers == 0, np.nan, numbers), zeros),
        }[node.op_type]
        if not np.isfinite(scale).all():
            raise ModelError(f"{_label(node)}: divides by zero")
        self._emit(node, Affine(scale, shift), value)


def _label(node: onnx.NodeProto) -> str:
    return label_of(node.op_type, name_of(node))


def _input_axes(value: onnx.ValueInfoProto, model: onnx.ModelProto, path: Path) -> str:
    """Return the order of the image input's axes."""
    dimensions = value.type.tensor_type.shape.dim
    sizes = [dimension.dim_value for dimension in dimensions]
    if value.type.tensor_type.HasField("shape") and len(sizes) != 4:
        raise ModelError(f"{path}: the image input {value.name!r} has {len(sizes)} dimensions, expected 4")
    if sizes and 3 in (sizes[1], sizes[3]) and sizes[1] != sizes[3]:
        return "NCHW" if sizes[1] == 3 else "NHWC"
    # The file leaves the sizes open: a Transpose to channels-first as the first operator tells.
    for node in model.graph.node:
        if node.op_type == "Transpose" and value.name in node.input:
            order = [attribute.ints for attribute in node.attribute if attribute.name == "perm"]
            if order and list(order[0]) == [0, 3, 1, 2]:
                return "NHWC"
    return "NCHW"
