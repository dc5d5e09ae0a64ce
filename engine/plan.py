"""A network cut to some layers and planned for one size: what is run, what it holds, and the two passes over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from engine import graph
from engine.graph import Node, Observer, value_shapes
from engine.ops import Array, Shape
from engine.preprocessing import Preprocessing
from kernels import Device

LayerGradient = Array | Callable[[Array | None], Array]
"""A derivative with respect to a layer's features, (H_l, W_l, N_l), which is added to the gradient that already flows
into them from the layers above; or a function that is given that, or None, and returns the sum of both, perhaps made in
place."""


@dataclass
class Tape:
    """What a forward pass leaves for the backward pass, which uses it up.

    Parameters
    ----------
    plan : that was run.
    features : by layer, (H_l, W_l, N_l), as asked for.
    saved : what each node's input gradients need.
    gradient_scale : the factor on the gradients of a backward pass, a power of two; what comes out is divided by it.
    """

    plan: Plan
    features: dict[str, Array]
    saved: list[Any] = field(default_factory=list)
    gradient_scale: float = 1.0

    def with_features(self, layers: Collection[str]) -> Tape:
        """Return a tape with the features of some layers only: the others have to be added before it is used."""
        features = {name: array for name, array in self.features.items() if name in layers}
        return replace(self, features=features)

    def copy(self) -> Tape:
        """Return a tape for one more backward pass over the same arrays."""
        return replace(self, features=dict(self.features), saved=list(self.saved))


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as it is run for one size and some layers; made by ``Network.plan``.

    Parameters
    ----------
    device : where it runs.
    preprocessing : from the image to the network's input; None where a layer's features stand in place of the image.
    dtype : of the activations.
    nodes : placed on the device, cut to the layers, joined where two are run as one; in running order.
    layers : the value that each layer stands for.
    input : the value that it begins with.
    shape : of the image, (H, W, 3), or of the features in place of it.
    """

    device: Device
    preprocessing: Preprocessing | None
    dtype: np.dtype[Any]
    nodes: tuple[Node, ...]
    layers: Mapping[str, str]
    input: str
    shape: Shape

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every value."""
        return {self.input: self.shape} | value_shapes(self.nodes, self.shape)

    @cached_property
    def kept(self) -> frozenset[str]:
        """The values that stay until the backward pass gets there."""
        return frozenset(self.layers.values())

    def forward(self, image: Array, *, observe: Observer | None = None) -> Tape:
        """Run the network on an image and return the layers' features and a tape for ``backward``.

        Parameters
        ----------
        image : (H, W, 3), RGB, 0..255, on the device; or the features in place of it, as they are stored.
        """
        saved: list[Any] = []
        values = self._begun(image)
        with self.device.computing():
            graph.forward(self.device, self.nodes, values, self.kept, saved, observe)
        return Tape(self, {name: values[value] for name, value in self.layers.items()}, saved)

    def _begun(self, image: Array) -> dict[str, Array]:
        """Return the value that the nodes begin with, by its name."""
        if self.preprocessing is None:
            return {self.input: image}
        return {self.input: self.preprocessing.apply(self.device, image, self.dtype)} if self.nodes else {}

    def features(self, image: Array, layers: Collection[str]) -> dict[str, Array]:
        """Run no more of the network than some layers need, and return their features as ``forward`` does.

        Parameters
        ----------
        image : as for ``forward``.
        """
        wanted = {self.layers[name] for name in layers}
        if not wanted:
            return {}
        nodes, values = graph.leading_to(self.nodes, wanted), self._begun(image)
        with self.device.computing():
            graph.forward(self.device, nodes, values, wanted)
        return {name: values[self.layers[name]] for name in layers}

    def backward(self, tape: Tape, gradients: Mapping[str, LayerGradient], *, observe: Observer | None = None) -> Array:
        """Return the gradient with respect to the image of what depends on the layers through ``gradients``.

        Parameters
        ----------
        tape : of ``forward``; it is used up.
        gradients : by layer, the derivative with respect to its features, or a function for it. That is called when the
            backward pass gets there, so not all of them are in memory at once.

        Returns
        -------
        (H, W, 3), RGB, per unit of 0..255, in double precision, on the device; of features in place of the image, of
        their shape and the network's dtype.
        """
        device, flowing = self.device, dict[str, Array]()
        names: dict[str, list[str]] = {}
        for name, value in self.layers.items():
            names.setdefault(value, []).append(name)

        def add(total: Array, gradient: Array) -> Array:
            device.add_to(total, gradient)
            return total

        def arrive(value: str) -> None:
            for name in names.get(value, ()):
                if name in gradients:
                    features, there = tape.features[name], flowing.get(value)
                    flowing[value] = _with_gradient(device, gradients[name], there, features, name)

        def take(value: str) -> Array | None:
            features = [tape.features.pop(name, None) for name in names.get(value, ())]
            return features[0] if features else None

        with device.computing():
            graph.backward(
                device,
                self.nodes,
                tape.saved,
                lambda node: take(node.output),
                flowing,
                add,
                lambda node: arrive(node.output),
                observe=observe,
            )
            arrive(self.input)  # of a layer that stands in place of the image
            take(self.input)
        if not flowing:
            raise ValueError("no gradient flows to the image: give one for at least one layer")
        gradient = flowing[self.input]
        if self.preprocessing is not None:
            gradient = self.preprocessing.input_gradient(device, gradient)
        return gradient if tape.gradient_scale == 1 else device.scaled(gradient, 1 / tape.gradient_scale)

    def bytes_kept(self, layers: Collection[str]) -> int:
        """Return the bytes of what a backward pass needs, with the features of some layers only."""
        nodes, shapes = self.nodes, self.shapes
        others = sum(node.operator.held_values(shapes[node.output], node.output in self.kept)[1] for node in nodes)
        return others + sum(int(np.prod(shapes[self.layers[name]])) for name in layers) * self.dtype.itemsize

    @property
    def peak_bytes(self) -> int:
        """The bytes that one forward and one backward pass hold at their peak.

        Counted are activations, their gradients, what is saved and the kept features; not counted are the weights, the
        losses' targets and the optimizer. Features in place of the image count throughout: who handed them in has them.
        """
        nodes, shapes, itemsize = self.nodes, self.shapes, self.dtype.itemsize
        size = {value: int(np.prod(shape)) * itemsize for value, shape in shapes.items()}
        held_for = []
        for node in nodes:
            values, others = node.operator.held_values(shapes[node.output], node.output in self.kept)
            held_for.append(values * itemsize + others)
        readers = Counter(name for node in nodes for name in node.inputs)
        given = {self.input} if self.preprocessing is None else set[str]()
        held, scratch = sum(size[name] for name in given), 0
        peak = held
        # What other branches still have to read: values on the way forward, gradients on the way back.
        waiting = {self.input} - given
        for node, bytes_held in zip(nodes, held_for, strict=True):
            inputs = [name for name in node.inputs if name not in given]
            around = waiting - {*inputs, *self.kept}
            peak = max(peak, held + sum(size[name] for name in (*around, *inputs, node.output)))
            scratch = max(scratch, node.operator.scratch_bytes(shapes[node.input]))
            held += bytes_held
            readers.subtract(node.inputs)
            waiting = {name for name in (*waiting, node.output) if readers[name]} - given
        waiting = set()
        for node, bytes_held in zip(reversed(nodes), reversed(held_for), strict=True):
            output = size[node.output] if node.output in self.kept else 0
            # An input that another reader has sent a gradient to is there twice until the two are added.
            around = waiting - {node.output}
            peak = max(peak, held + sum(size[name] for name in (*around, *node.inputs, node.output)) + output)
            held -= bytes_held
            waiting = {*waiting, *node.inputs} - {node.output}
        return peak + scratch


def joined(nodes: Sequence[Node], kept: Collection[str]) -> tuple[Node, ...]:
    """Return ``nodes`` with neighbors fused, or sharing work, where their operators allow it.

    Not where the value between the two is in ``kept`` (a loss may add to its gradient) or is read elsewhere.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    result: list[Node] = []
    for node in nodes:
        before = result[-1] if result else None
        alone = before is not None and before.output == node.input and readers[node.input] == 1
        pair = before.operator.joined(node.operator) if before and alone and node.input not in kept else None
        if before is None or pair is None:
            result.append(node)
        elif len(pair) == 1:
            result[-1] = replace(before, operator=pair[0], output=node.output)
        else:
            result[-1:] = [replace(before, operator=pair[0]), replace(node, operator=pair[1])]
    return tuple(result)


def _with_gradient(device: Device, given: LayerGradient, flowing: Array | None, features: Array, layer: str) -> Array:
    """Return the gradient that flows into a layer's features plus the given derivative.

    Raises ValueError where that has another shape than the features.
    """
    total = given(flowing) if callable(given) else given
    if np.shape(total) != features.shape:
        raise ValueError(f"the gradient of {layer!r} has the shape {np.shape(total)}, its features {features.shape}")
    if isinstance(features, np.ndarray):
        # The kernels go through it as one row, in place: neither another order nor the caller's own array will do.
        own = total is not flowing and not callable(given)
        total = np.array(total, features.dtype, order="C") if own else np.ascontiguousarray(total, features.dtype)
    if flowing is not None and not callable(given):
        device.add_to(flowing, total)
        return flowing
    return total
