"""The parts of a network that an image is computed by, one after another, each in pieces of its own.

Without a waist there is one, from the image to the layers. A waist is a layer that all behind it sees the image
through. What lies below it is computed in pieces, whose halos are narrow there; its features are put together, and what
lies behind it is computed of them as a whole. The way back is the reverse: the whole's gradient with respect to the
waist's features is handed, piece by piece, to what lies below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.network import Network
from engine.ops import Array
from engine.pieces import Piece
from engine.plan import Plan
from engine.view import View


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of the network, for images of one size.

    Parameters
    ----------
    image : height and width of the whole image.
    layers : that are looked at.
    pieces : of what it begins with; None stands for all of it.
    begin : the layer whose features it begins with; None for the image.
    end : the layer that the next stage begins with; None for the last.
    """

    image: tuple[int, int]
    layers: tuple[str, ...]
    pieces: Sequence[Piece | None]
    begin: str | None = None
    end: str | None = None
    _plans: dict[tuple[int, int], Plan] = field(default_factory=dict, repr=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The layers that it is run to."""
        return self.layers if self.end is None else (*self.layers, self.end)

    def plan(self, network: Network, piece: Piece | None) -> Plan:
        """Return how the network is run for one of the pieces, made once for a size."""
        size = self.image if piece is None else piece.size
        if size not in self._plans:
            self._plans[size] = network.plan(*size, self.outputs, self.begin)
        return self._plans[size]


@dataclass(frozen=True, eq=False)
class Passes:
    """How images are run through a network: whole, in pieces, or in pieces as far as a waist.

    Parameters
    ----------
    network : that is run.
    edges, piece, waist : as for ``engine.objective.Objective``.
    ahead : by how many rows and columns a layer is to be seen beyond a piece's own positions; 0 unless given.
    """

    network: Network
    edges: str = "zero"
    piece: tuple[int | None, int | None] | None = None
    waist: str | None = None
    ahead: Mapping[str, int] = field(default_factory=dict)

    def stages(self, shape: tuple[int, ...], layers: Iterable[str]) -> tuple[Stage, ...]:
        """Return the parts of the network that images are computed by: two with a waist and something behind it.

        Parameters
        ----------
        shape : of the images, (H, W, 3).
        layers : that are looked at.
        """
        (height, width), layers = shape[:2], tuple(layers)
        if self.waist is not None:
            below, behind = map(tuple, self.network.divided(layers, self.waist))
            if behind:
                pieces = self._pieces(shape, [*below, self.waist])
                low = Stage((height, width), below, pieces, end=self.waist)
                return low, Stage((height, width), behind, [None], begin=self.waist)
        return (Stage((height, width), layers, self._pieces(shape, layers)),)

    def views(self, stage: Stage, begun: Array, pixels: Array | None = None, **options: Any) -> Iterator[View]:
        """Run a stage forward, and give what there is to be seen of each of its pieces.

        Parameters
        ----------
        begun : what the stage begins with, where the network computes.
        pixels : the image there, for a view of it.
        options : of ``Plan.forward``.
        """
        for piece in stage.pieces:
            plan = stage.plan(self.network, piece)
            yield View(self.network, plan.forward(self.part(begun, piece), **options), pixels, piece)

    def part(self, begun: Array, piece: Piece | None) -> Array:
        """Return a piece of what a stage begins with."""
        return begun if piece is None else piece.taken(self.network.device, begun)

    def _pieces(self, shape: tuple[int, ...], layers: Sequence[str]) -> Sequence[Piece | None]:
        if (self.edges == "zero" and self.piece is None) or not layers:
            return [None]
        height, width = self.piece or (None, None)
        return self.network.cutter((shape[0], shape[1], 3), layers, self.edges, self.ahead).cut(height, width)
