"""What has been read of an ONNX file: the values that its nodes make, and its constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError
from engine.graph import Node, Rejected, label_of
from engine.onnx.constants import Constants
from engine.onnx.file import OnnxFile, name_of
from engine.onnx.image import input_layout
from engine.onnx.view import Channel, View
from engine.ops import Affine, Array, Conv, Operator, Pad
from kernels.geometry import Window

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
NO_PADS = (0, 0, 0, 0)


class RefusedError(Exception):
    """The engine cannot run a node, for the reason given."""


class Scope:
    """The values of a file as the engine has them, from the image on.

    A value is a view: the engine's value and how its axes lie, or channels of the image, which become a value when they
    are first computed with.

    Parameters
    ----------
    file : whose nodes are read, each after those that it reads from.

    Attributes
    ----------
    input : the image's name.
    sides : height and width of the image where the file fixes them, else 0.
    nodes : the engine's, so far.
    views : by the file's names.
    constants : what follows from the file alone.
    scales : scales and zero points that are found from the values at hand, by name: of which scale, times what.
    unavailable : names of values that are not to be had, as they stand behind a node that was rejected.
    rejected, left_out, notes : as in ``engine.graph.Graph``.
    """

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
        self.unavailable: set[str] = set()
        # Until IR version 3 the weights are listed among the inputs too.
        inputs = [value for value in graph.input if value.name not in self.constants]
        if not inputs:
            raise ModelError(f"{file.label}: the network has no image input")
        self.input = inputs[0].name
        self.unavailable.update(value.name for value in inputs[1:])
        axes, self.sides = input_layout(inputs[0], file)
        whole = inputs[0].type.tensor_type.elem_type not in (0, *FLOATS)
        image = View(self.input, axes, tuple(Channel(source) for source in range(3)), whole=whole)
        self.views = {self.input: image}
        self._names: dict[str, str] = {}
        self._padded: dict[str, str] = {}
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self.scales: dict[str, tuple[str, Array]] = {}
        self._made: dict[tuple[Channel, ...], str] = {image.channels or (): self.input}

    def begin(self, node: onnx.NodeProto) -> None:
        """Note which node the values are of that it is going to make."""
        self._names.update(dict.fromkeys(node.output, name_of(node)))

    def leave_out(self, node: onnx.NodeProto) -> None:
        """Note that a node cannot be run, nor what reads from it."""
        self.unavailable.update(name for name in node.output if name)
        self.left_out += node.op_type in ("Conv", "ConvInteger", "FusedConv", "QLinearConv")

    def free(self, name: str) -> str:
        """Return a name for a value that the file has none for."""
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name

    def view(self, node: onnx.NodeProto, position: int = 0) -> View:
        """Return what an input of a node is."""
        name = node.input[position] if position < len(node.input) else ""
        if name in self.constants:
            raise RefusedError(f"its input {name!r} is a constant")
        if name in self.scales:
            raise RefusedError(f"its input {name!r} is found from quantized values")
        if name not in self.views:
            raise ModelError(f"{label(node)}: input {name!r} is not produced by any node before it")
        return self.views[name]

    def activation(
        self, node: onnx.NodeProto, position: int = 0, *, pads_allowed: bool = False, quantized_allowed: bool = False
    ) -> View:
        """Return an input of a node as a value of the engine, which is made where there is none yet."""
        view = self.view(node, position)
        if view.channels is not None:
            axes = view.axes
            if len(view.channels) == 1:  # there is no letter for it: a size of 1 in its place does
                axes = {"NNHW": "NCHW", "NHWN": "NHWC"}.get(axes, axes)
            name = self._channels(node.input[position], view.channels)
            view = replace(view, name=name, axes=axes, channels=None)
        if view.quantized and not quantized_allowed:
            raise RefusedError(f"{node.op_type} of quantized values is not supported")
        if any(view.pads) and not pads_allowed:
            if node.input[position] not in self._padded:
                padded = self.free(f"{node.input[position]}/padded")
                self.nodes.append(Node(padded, Pad(view.pads, "constant"), view.name, padded))
                self._padded[node.input[position]] = padded
            view = replace(view, name=self._padded[node.input[position]], pads=NO_PADS)
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

    def channels_second(self, node: onnx.NodeProto, **allowed: bool) -> View:
        """Return a node's first input as ``activation`` does; refuses one whose axes are not in ONNX's order."""
        view = self.activation(node, **allowed)
        if view.axes != "NCHW":
            raise RefusedError(f"its input has the axes {view.axes}, expected NCHW")
        return view

    def tensor(self, node: onnx.NodeProto, position: int, role: str) -> Array:
        """Return a constant input as an array; ``role`` is what messages call it."""
        name = node.input[position] if position < len(node.input) else ""
        if name not in self.constants:
            if name in self.views:
                raise RefusedError(f"its {role} is computed, not a constant")
            raise ModelError(f"{label(node)}: {role} {name!r} is missing from the file")
        return self.constants.value(name, f"{label(node)}: {role} {name!r}")

    def weights(self, node: onnx.NodeProto, position: int, role: str) -> Array:
        """Return a constant input as finite floating-point numbers."""
        array = self.tensor(node, position, role)
        # bfloat16 is of a kind of its own; what is left out are integers, complex numbers and text.
        if array.dtype.kind not in "fV":
            raise ModelError(f"{label(node)}: {role} has the type {array.dtype}, expected floating point")
        dtype = np.float64 if array.dtype == np.float64 else np.float32
        try:
            values = array.astype(dtype)
        except (TypeError, ValueError):
            raise ModelError(f"{label(node)}: {role} has the type {array.dtype}, expected floating point") from None
        if not np.isfinite(values).all():
            count = int(values.size - np.isfinite(values).sum())
            raise ModelError(f"{label(node)}: {role} has {count} values that are infinite or not a number")
        return values

    def has(self, node: onnx.NodeProto, position: int) -> bool:
        """Say whether an optional input is given."""
        return len(node.input) > position and bool(node.input[position])

    def emit(self, node: onnx.NodeProto, operator: Operator, input: View, *others: View, **known: Any) -> None:
        """Append the engine's node for one of the file's; ``known`` is what is known of its value, as in ``View``."""
        self.run(name_of(node), operator, node.output[0], input, *others, **known)

    def run(self, name: str, operator: Operator, output: str, input: View, *others: View, **known: Any) -> None:
        """Append a node of the engine, whose value the file calls ``output``."""
        self.nodes.append(Node(name, operator, input.name, output, tuple(other.name for other in others)))
        self.views[output] = View(output, input.axes, **known)


def label(node: onnx.NodeProto) -> str:
    """Return what messages call a node."""
    return label_of(node.op_type, name_of(node))
