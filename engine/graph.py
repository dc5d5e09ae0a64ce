"""A network as a list of nodes, whatever file it is from, and the one way to run it forward and backward.

A node's operator is one of ``engine.ops`` or, in a model that is run as ONNX defines it, of ``engine.onnx.operators``:
the sweeps ask for no more than ``Runnable``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from engine.ops import Array, Operator, Shape
from kernels import Device

Gradient = Array | Callable[[], Array] | None
"""A gradient, a function that computes it if it is wanted, or None if there is none."""

Observer = Callable[[str, Array], None]
"""Called with a node's label and its output, or the gradient of an input, for looking into a run."""


class Runnable(Protocol):
    """What the sweeps need of an operator; with one output, that stands in place of a tuple."""

    @property
    def kind(self) -> str:
        """Its name in messages."""
        ...

    def forward(self, device: Device, inputs: Sequence[Any], output_is_kept: bool) -> tuple[Any, Any]:
        """Return output and what the input gradients need besides it."""
        ...

    def input_gradients(self, device: Device, output_gradient: Any, output: Any, saved: Any) -> Sequence[Gradient]:
        """Return the gradient with respect to each input."""
        ...


AnyOperator = TypeVar("AnyOperator", bound=Runnable, covariant=True)


@dataclass(frozen=True)
class GraphNode(Generic[AnyOperator]):
    """One use of an operator: ``output = operator(input)``.

    Parameters
    ----------
    name : as in the file it is from, or that of the layer whose values it gives.
    operator : what it computes.
    input, output : names of values; empty for what is left out.
    others : the further inputs of an operator of several.
    further_outputs : of an operator of several.
    """

    name: str
    operator: AnyOperator
    input: str
    output: str
    others: tuple[str, ...] = ()
    further_outputs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The label for messages: ``Conv 'conv1_1'``."""
        return label_of(self.operator.kind, self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs, in order; a value that is read twice stands there twice."""
        return (self.input, *self.others)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs, in order."""
        return (self.output, *self.further_outputs)


Node = GraphNode[Operator]
"""A node of the network that pictures are made with."""


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


def value_shapes(nodes: Sequence[Node], image: Shape) -> dict[str, Shape]:
    """Return the shape of every value of nodes in running order; raises ValueError, with the node, where one fails.

    Parameters
    ----------
    image : (H, W, C), of the first node's input.
    """
    shapes = {node.input: image for node in nodes[:1]}
    for node in nodes:
        try:
            shapes[node.output] = node.operator.output_shape([shapes[name] for name in node.inputs])
        except ValueError as error:
            raise ValueError(f"{node.label}: {error}") from None
    return shapes


def leading_to(
    nodes: Sequence[GraphNode[AnyOperator]], values: Collection[str], begin: str | None = None
) -> tuple[GraphNode[AnyOperator], ...]:
    """Return the nodes that some values depend on; where a value is given to begin with, those between it and them."""
    needed = set(values) - {begin}
    chosen = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            chosen.append(node)
            needed.update(name for name in node.inputs if name != begin)
    return tuple(reversed(chosen))


def depending_on(nodes: Sequence[GraphNode[Any]], value: str) -> set[str]:
    """Return the values that depend on a value, itself among them."""
    found = {value}
    for node in nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def forward(
    device: Device,
    nodes: Sequence[GraphNode[Any]],
    values: MutableMapping[str, Any],
    kept: Collection[str],
    tape: list[Any] | None = None,
    observe: Observer | None = None,
) -> None:
    """Run nodes in order.

    Parameters
    ----------
    values : by name; the nodes' outputs are added, and each value that is not ``kept`` goes after its last reader.
    tape : what each node's input gradients need is added, in order.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    for node in nodes:
        found, saved = node.operator.forward(
            device, [values[name] if name else None for name in node.inputs], node.output in kept
        )
        if tape is not None:
            tape.append(saved)
        for name, output in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            if name:
                values[name] = output
        if observe:
            observe(node.label, values[node.output])
        readers.subtract(node.inputs)
        for name in {*node.inputs, *node.outputs}:
            if name in values and readers[name] <= 0 and name not in kept:
                del values[name]


def backward(
    device: Device,
    nodes: Sequence[GraphNode[Any]],
    tape: list[Any],
    outputs: Callable[[GraphNode[Any]], Any],
    flowing: MutableMapping[str, Array],
    add: Callable[[Array, Array], Array],
    arrive: Callable[[GraphNode[Any]], None] | None = None,
    wanted: Collection[str] | None = None,
    observe: Observer | None = None,
) -> None:
    """Take gradients back through the nodes, last to first; here and nowhere else they are added up.

    Parameters
    ----------
    tape : of ``forward``; it is used up.
    outputs : gives a node's output where that was kept, else None.
    flowing : the gradients so far by value; those of values that a node has produced go when it has been passed.
    add : returns the sum of two gradients of one value; the first may be overwritten.
    arrive : called before each node: gradients of its outputs may be added to ``flowing``.
    wanted : the values whose gradients are asked for, and those on the way to them; None means all.
    """
    while tape:
        node, saved = nodes[len(tape) - 1], tape.pop()
        if arrive:
            arrive(node)
        output = outputs(node)
        of_outputs = [flowing.pop(name, None) for name in node.outputs]
        if all(gradient is None for gradient in of_outputs):
            continue
        given = of_outputs[0] if len(of_outputs) == 1 else tuple(of_outputs)
        found = node.operator.input_gradients(device, given, output, saved)
        for name, gradient in zip(node.inputs, found, strict=False):
            if wanted is not None and name not in wanted:
                continue
            gradient = gradient() if callable(gradient) else gradient
            if observe:
                observe(node.label, gradient)
            flowing[name] = add(flowing[name], gradient) if name in flowing else gradient
