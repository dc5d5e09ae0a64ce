"""A network as a list of nodes, whatever file it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.ops import Array, Conv, Junction, Operator, Shape
from kernels.cpu.threads import Workers


@dataclass(frozen=True)
class Node:
    """One operator of the network: ``output = operator(input)``.

    Parameters
    ----------
    name : as in the file it is from, or that of the layer whose values it gives.
    operator : what it computes.
    input, output : names of values.
    others : the further inputs of an operator of several, a ``Junction``.
    """

    name: str
    operator: Operator
    input: str
    output: str
    others: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How messages call it: ``Conv 'conv1_1'``, by whatever algorithm the convolution is computed."""
        return label_of(type(convolution_of(self.operator) or self.operator).__name__, self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs, in order; a value that is read twice stands there twice."""
        return (self.input, *self.others)

    @property
    def values(self) -> tuple[str, ...]:
        """Inputs and output: what is there while the operator runs."""
        return (*self.inputs, self.output)

    def output_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Return the output's shape from those of the values; raises ValueError when they do not fit."""
        if isinstance(self.operator, Junction):
            return self.operator.joined_shape([shapes[name] for name in self.inputs])
        return self.operator.output_shape(shapes[self.input])

    def forward(self, values: Mapping[str, Array], output_is_kept: bool, workers: Workers) -> tuple[Array, Any]:
        """Return the output and what ``input_gradients`` needs beside it, see ``Operator.forward``."""
        if isinstance(self.operator, Junction):
            inputs = [values[name] for name in self.inputs]
            return self.operator.join(inputs, workers), tuple(one.shape for one in inputs)
        return self.operator.forward(values[self.input], output_is_kept, workers)

    def input_gradients(
        self, output_gradient: Array, output: Array | None, saved: Any, workers: Workers
    ) -> list[Array]:
        """Return the gradient with respect to each of the inputs, see ``Operator.input_gradient``."""
        if isinstance(self.operator, Junction):
            return self.operator.input_gradients(output_gradient, saved, workers)
        return [self.operator.input_gradient(output_gradient, output, saved, workers)]


@dataclass(frozen=True)
class Rejected:
    """A node that the engine cannot run, and why; its label has ONNX's name of the operator."""

    label: str
    output: str
    reason: str


@dataclass(frozen=True)
class Graph:
    """A network as read from a file.

    Parameters
    ----------
    input : name of the image input.
    nodes : in an order in which they can be run.
    rejected : what the engine cannot run; nothing in ``nodes`` depends on it.
    metadata : the file's key-value properties.
    operators : how often each ONNX operator occurs in the file.
    notes : what is to be known of how the file is run, a sentence each.
    left_out : how many of the file's convolutions are not among the nodes.
    """

    input: str
    nodes: tuple[Node, ...]
    rejected: tuple[Rejected, ...]
    metadata: dict[str, str]
    operators: dict[str, int]
    notes: tuple[str, ...] = ()
    left_out: int = 0


def label_of(kind: str, name: str) -> str:
    """Return how messages call a node: its kind of operator and its name."""
    return f"{kind} {name!r}"


def convolution_of(operator: Operator) -> Conv | None:
    """Return the convolution that an operator computes, by whatever algorithm; None for one that computes another."""
    return operator if isinstance(operator, Conv) else getattr(operator, "conv", None)


def value_shapes(nodes: Sequence[Node], image: Shape) -> dict[str, Shape]:
    """Return the shape of every value of nodes in running order; raises ValueError, with the node, where one fails.

    Parameters
    ----------
    image : (H, W, C), of the first node's input.
    """
    shapes = {nodes[0].input: image}
    for node in nodes:
        try:
            shapes[node.output] = node.output_shape(shapes)
        except ValueError as error:
            raise ValueError(f"{node.label}: {error}") from None
    return shapes
