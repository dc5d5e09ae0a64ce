"""What is checked: a network, the pictures of its loss, and the image at which the gradient is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.graph import Node
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.regions import Region
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STATISTICS, PAPER_STYLE_LAYERS
from engine.terms import Variation


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss whose gradient is to be checked, at one image.

    Parameters
    ----------
    network : in float64; the same network in other precisions is made from it.
    content, style : content image and style image, (H, W, 3), RGB, 0..255.
    image : where the gradient is taken, of the content image's shape, float64.
    content_layers, style_layers : names.
    content_weight, style_weight : alpha and beta.
    style_statistics : what the style consists of, with weights, see ``engine.statistics``.
    variation : a total variation beside them, or None.
    regions : parts with styles of their own in place of the style image's, see ``engine.regions``.
    content_mask : how much each position of the content counts, or None.
    edges : what the network sees beyond the image's edges, see ``engine.pieces``.
    piece, waist : of the image, as for ``Objective``.
    """

    network: Network
    content: Array
    style: Array
    image: NDArray[np.float64]
    content_layers: tuple[str, ...] = PAPER_CONTENT_LAYERS
    style_layers: tuple[str, ...] = PAPER_STYLE_LAYERS
    content_weight: float = 1e-3
    style_weight: float = 1.0
    style_statistics: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PAPER_STATISTICS, 1.0))
    variation: Variation | None = None
    regions: tuple[Region, ...] = ()
    content_mask: Array | None = None
    edges: str = "zero"
    piece: tuple[int | None, int | None] | None = None
    waist: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that the loss looks at, each once."""
        return tuple(dict.fromkeys([*self.style_layers, *self.content_layers]))

    def objective(self, network: Network | None = None) -> Objective:
        """Return the loss, computed by ``network`` (the problem's own by default)."""
        return Objective(
            network or self.network,
            self.content if self.content_layers else None,
            self.style if self.style_layers and not self.regions else None,
            self.content_layers,
            self.style_layers,
            self.content_weight,
            self.style_weight,
            style_statistics=self.style_statistics,
            further_terms=() if self.variation is None else (self.variation,),
            regions=self.regions if self.style_layers else (),
            content_mask=self.content_mask if self.content_layers else None,
            edges=self.edges,
            piece=self.piece,
            waist=self.waist,
        )

    def parts(self) -> dict[str, Problem]:
        """Return the problem of each single term, by a name such as ``"style conv1_1"``; all have the weight 1."""
        bare = replace(self, content_layers=(), style_layers=(), content_weight=1.0, style_weight=1.0, variation=None)
        alone = {f"content {layer}": replace(bare, content_layers=(layer,)) for layer in self.content_layers}
        alone |= {f"style {layer}": replace(bare, style_layers=(layer,)) for layer in self.style_layers}
        if self.variation is not None:
            alone["total variation"] = replace(bare, variation=replace(self.variation, weight=1.0))
        return alone


def in_precision(network: Network, dtype: str, convolution: str = "direct") -> Network:
    """Return the network computing in another precision, from the same weights.

    Parameters
    ----------
    dtype : ``"float32"``, ``"float64"`` or ``"complex128"``.
    convolution : as in ``engine.load_network``; other algorithms than ``"direct"`` are for float32.
    """
    chosen = np.dtype(dtype)
    nodes = tuple(replace(node, operator=node.operator.astype(chosen)) for node in network.nodes)
    return replace(network, nodes=nodes, dtype=chosen, convolution=convolution)


@dataclass(frozen=True, eq=False)
class Visit:
    """One operator during a forward pass: its input and output, (H, W, C) each."""

    node: Node
    inputs: tuple[Array, ...]
    output: Array

    @property
    def input(self) -> Array:
        """The first input; most operators have no other."""
        return self.inputs[0]


def visits(network: Network, image: Array, layers: tuple[str, ...]) -> tuple[Visit, ...]:
    """Run the network on an image and return every operator with its input and output, in running order."""
    outputs: list[Array] = []
    tape = network.forward(image, layers, observe=lambda _, output: outputs.append(output))
    values = {network.nodes[0].input: network.preprocessing.apply(network.device, np.asarray(image), network.dtype)}
    values |= {node.output: output for node, output in zip(tape.plan.nodes, outputs, strict=True)}
    ran = [node for node in network.nodes if node.output in values]
    return tuple(Visit(node, tuple(values[name] for name in node.inputs), values[node.output]) for node in ran)
