"""The parts of a network that an image is computed by, one after another, each in pieces of its own.

Without a waist there is one, from the image to the layers. A waist is a layer that all behind it sees the image
through. What lies below it is computed in pieces, whose halos are narrow there; its features are put together, and what
lies behind it is computed of them as a whole. The way back is the reverse: the whole's gradient with respect to the
waist's features is handed, piece by piece, to what lies below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.network import Network
from engine.pieces import Piece
from engine.plan import Plan


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
