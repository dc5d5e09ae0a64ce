"""What a run of a network takes, told from the shapes beforehand: memory, and multiplications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from engine.graph import Node, convolution_of, value_shapes
from engine.ops import Conv, ConvBlock, HopperConv, ImplicitGemmConv, MaxPool, Relu, Shape


def peak_bytes(nodes: Sequence[Node], image: Shape, kept: Collection[str], dtype: np.dtype[Any], threads: int) -> int:
    """Return the bytes that one forward and one backward pass hold at their peak.

    Counted are activations, their gradients, what is saved and the kept features; not counted are the weights, the
    losses' targets and the optimiser.

    Parameters
    ----------
    nodes : what is run, in order.
    image : (H, W, 3).
    kept : the values whose gradients are given, which stay until then.
    dtype : of the activations.
    threads : at work.
    """
    shapes = value_shapes(nodes, image)
    size = {value: int(np.prod(shape)) * dtype.itemsize for value, shape in shapes.items()}
    held_for = [_held_bytes(node, shapes[node.output], node.output in kept, dtype) for node in nodes]
    readers = Counter(name for node in nodes for name in node.inputs)
    held, peak, scratch = 0, 0, 0
    # What other branches still have to read: values on the way forward, gradients on the way back.
    waiting = {nodes[0].input}
    for node, bytes_held in zip(nodes, held_for, strict=True):
        around = waiting - {*node.inputs, *kept}
        peak = max(peak, held + sum(size[name] for name in (*around, *node.values)))
        if isinstance(node.operator, Conv | ConvBlock):
            scratch = max(scratch, node.operator.scratch_bytes(shapes[node.input], threads))
        held += bytes_held
        readers.subtract(node.inputs)
        waiting = {name for name in (*waiting, node.output) if readers[name]}
    waiting = set()
    for node, bytes_held in zip(reversed(nodes), reversed(held_for), strict=True):
        output = size[node.output] if node.output in kept else 0
        # An input that another reader has sent a gradient to is there twice until the two are added.
        around = waiting - {node.output}
        peak = max(peak, held + sum(size[name] for name in (*around, *node.values)) + output)
        held -= bytes_held
        waiting = {*waiting, *node.inputs} - {node.output}
    return peak + scratch


def weight_bytes(nodes: Sequence[Node], dtype: np.dtype[Any]) -> int:
    """Return the bytes of the nodes' parameters, as they are and as each algorithm takes them in both directions."""
    return sum(node.operator.parameters * _copies(node) for node in nodes) * dtype.itemsize


def multiply_adds(nodes: Sequence[Node], image: Shape) -> int:
    """Return the multiplications of the nodes' convolutions in one forward pass, as the definition makes them.

    Parameters
    ----------
    image : (H, W, 3).
    """
    shapes, total = value_shapes(nodes, image), 0
    for node in nodes:
        conv = convolution_of(node.operator)
        if conv is not None:
            rows, columns, _ = shapes[node.output]
            total += rows * columns * conv.weight.size
    return total


def _held_bytes(node: Node, output: Shape, kept: bool, dtype: np.dtype[Any]) -> int:
    """Return the bytes that stay until the backward pass because of a node."""
    values, operator = int(np.prod(output)), node.operator
    conv = convolution_of(operator)
    if isinstance(operator, ConvBlock) and operator.pool:
        signs = 4 * values // 8
        return signs + (values * dtype.itemsize if kept else 0)
    if kept:
        return values * dtype.itemsize
    if isinstance(operator, Relu) or (conv is not None and conv.relu):
        return values // 8
    return values if isinstance(operator, MaxPool) else 0


def _copies(node: Node) -> int:
    """Return how many numbers there are for each of a node's parameters."""
    if isinstance(node.operator, ConvBlock):
        return 5  # itself, and transformed to 36 numbers for 9
    if isinstance(node.operator, HopperConv | ImplicitGemmConv):
        return 3  # itself, and packed for either direction
    return 2  # itself, and turned
