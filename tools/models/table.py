"""What a network is made of: a row for each operator, with what it looks at and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.graph import Graph
from engine.ops import Affine, Conv, Operator, Pad, Shape
from kernels.geometry import Window
from tools.cli.text_table import aligned
from tools.models.part import called_by_layer, is_layer


@dataclass(frozen=True)
class Row:
    """One operator of a network as ``inspect`` shows it.

    Parameters
    ----------
    name : of the layer, or of the operator where it is none.
    is_layer : whether losses can look at it.
    operator : kind, window and ReLU.
    shape : (height, width, channels) of the output, or None where the image is too small for it.
    field : receptive field: how many rows and columns of the image one output value depends on.
    stride : rows and columns of the image from one output value to the next.
    parameters : weights and biases.
    multiply_adds : of its convolution for the whole output; None where the shape is.
    """

    name: str
    is_layer: bool
    operator: str
    shape: Shape | None
    field: tuple[int, int]
    stride: tuple[int, int]
    parameters: int
    multiply_adds: int | None


def layer_table(graph: Graph, height: int, width: int) -> tuple[list[Row], str]:
    """Return a row for each operator, for an image of ``height`` x ``width`` pixels, and what keeps it from running.

    The second is empty where nothing does; else the shapes behind that operator are None.
    """
    rows: list[Row] = []
    obstacle = ""
    shapes: dict[str, Shape | None] = {graph.input: (height, width, 3)}
    reach = {graph.input: ((1, 1), (1, 1))}
    for node in called_by_layer(graph):
        operator = node.operator
        shape: Shape | None = None
        input_shapes = [known for name in node.inputs if (known := shapes[name]) is not None]
        if len(input_shapes) == len(node.inputs):
            try:
                shape = operator.output_shape(input_shapes)
            except ValueError as error:
                obstacle = obstacle or f"an image of {width}x{height} pixels does not get past {node.label}: {error}"
        # Where branches meet, the one that sees the most tells.
        fields, strides = zip(*(reach[name] for name in node.inputs), strict=True)
        field, stride = _pair(map(max, *fields, (0, 0))), _pair(map(max, *strides, (0, 0)))
        window = getattr(operator, "window", Window((1, 1)))
        field = _pair(f + (extent - 1) * s for f, extent, s in zip(field, window.extent, stride, strict=True))
        stride = _pair(s * step for s, step in zip(stride, window.strides, strict=True))
        multiply_adds = None
        if shape is not None:
            multiply_adds = shape[0] * shape[1] * operator.weight.size if isinstance(operator, Conv) else 0
        shapes[node.output], reach[node.output] = shape, (field, stride)
        rows.append(
            Row(
                node.name,
                is_layer(node),
                _description(operator),
                shape,
                field,
                stride,
                operator.parameters,
                multiply_adds,
            )
        )
    return rows, obstacle


def render(rows: Sequence[Row], size: int) -> str:
    """Return the operators as a table with a line of sums."""
    lines = [("layer", "operator", f"output at {size}x{size}", "field", "stride", "parameters", "multiply-adds")]
    for row in rows:
        shape = "-" if row.shape is None else f"{row.shape[2]} x {row.shape[0]} x {row.shape[1]}"
        cost = "-" if row.multiply_adds is None else f"{row.multiply_adds:,}"
        name = row.name if row.is_layer else f"({row.name})"
        field, stride = _sides(row.field), _sides(row.stride)
        lines.append((name, row.operator, shape, field, stride, f"{row.parameters:,}", cost))
    costs = [row.multiply_adds for row in rows]
    total = "-" if None in costs else f"{sum(cost or 0 for cost in costs):,}"
    lines.append(("total", "", "", "", "", f"{sum(row.parameters for row in rows):,}", total))
    note = "Output: channels x height x width. Field and stride in pixels of the image. In parentheses: no layer."
    return "\n".join([*aligned(lines, "<<>"), note])


def _description(operator: Operator) -> str:
    text = type(operator).__name__
    window = getattr(operator, "window", None)
    if window is not None:
        text += f" {_sides(window.kernel, always=True)}"
        text += f" / {_sides(window.strides)}" if window.strides != (1, 1) else ""
        text += f" dilated {_sides(window.dilations)}" if window.dilations != (1, 1) else ""
    if isinstance(operator, Conv):
        text += f" in {operator.group} groups" if operator.group > 1 else ""
        text += ", ReLU" if operator.relu else ""
    if isinstance(operator, Pad):
        text += f" {operator.mode}"
    if isinstance(operator, Affine):
        text += " (scale, shift)"
    return text


def _pair(numbers: Any) -> tuple[int, int]:
    first, second = numbers
    return first, second


def _sides(pair: tuple[int, int], always: bool = False) -> str:
    return str(pair[0]) if pair[0] == pair[1] and not always else f"{pair[0]}x{pair[1]}"
