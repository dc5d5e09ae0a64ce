"""The engine's operators as an ONNX file: the way back from ``engine.onnx.reader``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engine.errors import ModelError, unknown_name
from engine.graph import Node
from engine.ops import Add, Affine, Array, AveragePool, Concat, Conv, MaxPool, Pad, Relu
from kernels.geometry import Window

OPSET = 13
IR_VERSION = 8
DTYPES = ("float16", "float32", "float64")

MAX_WEIGHT_BYTES = 2_000_000_000
"""What the weights of one file may take: protobuf, which ONNX is stored in, ends at 2^31 bytes."""


def write_onnx(path: str | Path, nodes: Sequence[Node], metadata: Mapping[str, str], *, dtype: str = "float32") -> None:
    """Write nodes as an ONNX model (opset 13, IR version 8).

    ``read_onnx`` gives the same nodes back, with the same names and values, and weights that are equal to the bit where
    ``dtype`` holds them. Two things come back in another form that computes the same: a Relu or an Affine directly
    behind a Conv without ReLU is folded into it, and an Affine of one number has one for each channel. A name that
    stands for two nodes gets a number the second time, one that is empty becomes the output's.

    Parameters
    ----------
    path : the file; it is written in place.
    nodes : in an order in which they can be run. The first reads the image, (1, 3, height, width) in the file and
        called ``image``; the others read it or the output of a node before them. What no node reads is an output of
        the model. ONNX nodes are called by the nodes' names.
    metadata : the file's key-value properties, see ``engine.preprocessing.preprocessing_metadata``.
    dtype : of the weights and the image: ``"float16"``, ``"float32"`` or ``"float64"``.

    Raises ModelError when the nodes do not fit together or ONNX cannot express one of them, ValueError for a wrong
    ``dtype``, OSError when the file cannot be written.

    Source: ONNX operators of opset 13: Conv and AveragePool (since 11), MaxPool (12), Relu, BatchNormalization, Add,
    Sum, Concat and Pad.
    """
    if dtype not in DTYPES:
        raise ValueError(unknown_name("dtype", dtype, DTYPES))
    if not nodes:
        raise ModelError("a model without operators cannot be written")
    size = sum(node.operator.parameters for node in nodes) * np.dtype(dtype).itemsize
    if size > MAX_WEIGHT_BYTES:
        raise ModelError(f"the weights take {size:,} bytes, one ONNX file holds at most {MAX_WEIGHT_BYTES:,}")
    writer = _Writer(nodes, np.dtype(dtype))
    for node in nodes:
        writer.add(node)
    model = helper.make_model(
        writer.graph(), producer_name="neural-style-by-hand", opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(metadata))
    Path(path).write_bytes(model.SerializeToString())


class _Writer:
    """Turns the engine's nodes into ONNX's, one after the other."""

    def __init__(self, nodes: Sequence[Node], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        # The outputs keep their names: those of a network that is no VGG are the names of its layers.
        self._values = {node.output for node in nodes}
        self._names: set[str] = set()
        self.image = _free("image", self._values)
        self._value_of = {nodes[0].input: self.image}
        self._channels = {self.image: 3}
        self._read: set[str] = set()

    def add(self, node: Node) -> None:
        """Append one node, with its weights."""
        for name in node.inputs:
            if name not in self._value_of:
                raise ModelError(f"{node.label}: its input {name!r} is neither the image nor an earlier node's output")
        if node.output in self._value_of:
            raise ModelError(f"{node.label}: its output {node.output!r} is there already")
        inputs = [self._value_of[name] for name in node.inputs]
        try:
            # Large enough for any window: what may fail is the channels.
            shapes = [(1 << 20, 1 << 20, self._channels[self._value_of[name]]) for name in node.inputs]
            channels = node.operator.output_shape(shapes)[2]
        except ValueError as error:
            raise ModelError(f"{node.label}: {error}") from None
        name = _free(node.name or node.output, self._names)
        self._emit(node, name, inputs, channels)
        self._read.update(inputs)
        self._value_of[node.output] = node.output
        self._channels[node.output] = channels

    def graph(self) -> onnx.GraphProto:
        """Return what was added as a graph."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        image = helper.make_tensor_value_info(self.image, kind, [1, 3, "height", "width"])
        outputs = [
            helper.make_tensor_value_info(value, kind, [1, channels, None, None])
            for value, channels in self._channels.items()
            if value not in self._read
        ]
        return helper.make_graph(self.nodes, "network", [image], outputs, self.tensors)

    def _emit(self, node: Node, name: str, inputs: Sequence[str], channels: int) -> None:
        operator, input = node.operator, inputs[0]
        if isinstance(operator, Conv):
            _check(not operator.window.ceil_mode, node, "a Conv with ceil_mode")
            weight = self._tensor(node, f"{name}.weight", operator.weight.transpose(3, 2, 0, 1))
            bias = [] if operator.bias is None else [self._tensor(node, f"{name}.bias", operator.bias)]
            output = _free(f"{node.output}.before_relu", self._values) if operator.relu else node.output
            attributes = _attributes(operator.window) | {"group": operator.group}
            self._node("Conv", name, [input, weight, *bias], output, attributes)
            if operator.relu:
                self._node("Relu", _free(f"{name}.relu", self._names), [output], node.output)
        elif isinstance(operator, Relu):
            self._node("Relu", name, [input], node.output)
        elif isinstance(operator, MaxPool):
            attributes = _attributes(operator.window) | {"ceil_mode": int(operator.window.ceil_mode)}
            self._node("MaxPool", name, [input], node.output, attributes)
        elif isinstance(operator, AveragePool):
            _check(operator.window.dilations == (1, 1), node, "an AveragePool with dilations")
            attributes = _attributes(operator.window) | {"ceil_mode": int(operator.window.ceil_mode)}
            del attributes["dilations"]
            attributes["count_include_pad"] = int(operator.count_include_pad)
            self._node("AveragePool", name, [input], node.output, attributes)
        elif isinstance(operator, Affine):
            # Normalized by mean 0, variance 1 and epsilon 0, what is left is scale and shift, without any rounding.
            # Momentum 1 keeps mean and variance where a program takes the node for one in training, as onnx's own
            # reference evaluator does below opset 14.
            values = {"scale": operator.scale, "shift": operator.shift, "mean": np.zeros(1), "variance": np.ones(1)}
            weights = [
                self._tensor(node, f"{name}.{role}", np.broadcast_to(array, (channels,)))
                for role, array in values.items()
            ]
            self._node("BatchNormalization", name, [input, *weights], node.output, {"epsilon": 0.0, "momentum": 1.0})
        elif isinstance(operator, Pad):
            top, left, bottom, right = operator.pads
            pads = np.array([0, 0, top, left, 0, 0, bottom, right])
            self.tensors.append(numpy_helper.from_array(pads, _free(f"{name}.pads", self._values)))
            self._node("Pad", name, [input, self.tensors[-1].name], node.output, {"mode": operator.mode})
        elif isinstance(operator, Add):
            self._node("Add" if len(inputs) == 2 else "Sum", name, inputs, node.output)
        elif isinstance(operator, Concat):
            self._node("Concat", name, inputs, node.output, {"axis": 1})
        else:
            raise ModelError(f"{node.label}: a {type(operator).__name__} cannot be written as ONNX")

    def _node(
        self, kind: str, name: str, inputs: Iterable[str], output: str, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **(attributes or {})))

    def _tensor(self, node: Node, name: str, values: Array) -> str:
        """Add a weight and return its name."""
        _check(values.dtype.kind == "f", node, f"a weight of type {values.dtype}")
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(values, self.dtype)
        if not np.isfinite(numbers).all():
            raise ModelError(f"{node.label}: its weights are not finite in {self.dtype}")
        name = _free(name, self._values)
        self.tensors.append(numpy_helper.from_array(numbers, name))
        return name


def _attributes(window: Window) -> dict[str, Any]:
    """Return a window as the attributes that Conv and MaxPool share."""
    attributes: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
    }
    if window.auto_pad == "NOTSET":
        return attributes | {"pads": window.pads}
    return attributes | {"auto_pad": window.auto_pad}


def _check(possible: bool, node: Node, what: str) -> None:
    if not possible:
        raise ModelError(f"{node.label}: {what} cannot be written as ONNX opset {OPSET}")


def _free(name: str, taken: set[str]) -> str:
    """Return ``name``, with a number behind it where it is taken already, and take it."""
    chosen, number = name, 1
    while chosen in taken:
        number += 1
        chosen = f"{name}_{number}"
    taken.add(chosen)
    return chosen
