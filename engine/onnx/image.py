"""How an ONNX file takes its image: the order of its axes, and its size."""

from __future__ import annotations

import onnx

from engine.errors import ModelError
from engine.onnx.file import OnnxFile


def input_layout(value: onnx.ValueInfoProto, file: OnnxFile) -> tuple[str, tuple[int, int]]:
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
