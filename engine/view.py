"""What an evaluation shows the terms of its loss: features, and sums of them over positions, each taken once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from engine import losses, sliced, statistics
from engine.network import Network
from engine.ops import Array
from engine.pieces import Piece, Slices, contiguous
from engine.plan import Tape
from engine.statistics import SHIFT, Moments
from kernels import Device


@dataclass(frozen=True)
class View:
    """What an evaluation shows its terms.

    Parameters
    ----------
    network : that was run.
    tape : of its forward pass, with the features as they are stored.
    pixels : the image, where the network computes; None where no term looks at it.
    piece : of the image that was run, where that is not all of it: see ``engine.pieces``. The features are those at its
        own positions.
    sums : over positions, by what they are of, as far as they have been taken: those of the piece, or handed in, those
        of the whole.
    """

    network: Network
    tape: Tape
    pixels: Array | None = None
    piece: Piece | None = None
    sums: dict[Any, Any] = field(default_factory=dict)
    _made: dict[Any, Any] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        """Where the features lie."""
        return self.network.device

    @property
    def image(self) -> Array:
        """The image, (H, W, 3), RGB, 0..255, floating."""
        assert self.pixels is not None
        return self.pixels

    def features(self, layer: str, ahead: int = 0) -> Array:
        """Return a layer's features, (H_l, W_l, N_l), stored ``scale`` times as large as they are.

        Parameters
        ----------
        ahead : rows and columns beyond a piece's own that are wanted as well, as far as there are any.
        """
        features = self.tape.features[layer]
        return features if self.piece is None else contiguous(features[self.where(layer, ahead)])

    def where(self, layer: str, ahead: int = 0) -> Slices:
        """Return where ``features`` lie among those that the network was run to."""
        if self.piece is None:
            return slice(None), slice(None)
        part = self.piece.parts[layer]
        return part.ahead if ahead else part.inside

    def here(self, layer: str, array: Array, ahead: int = 0) -> Array:
        """Return what of an array, as large as a layer of the whole image, stands where ``features`` are."""
        if self.piece is None:
            return array
        part = self.piece.parts[layer]
        if not ahead:
            return contiguous(array[part.at])
        # A tile goes on with its other side.
        places = (
            np.arange(along.start, along.stop) % size for along, size in zip(part.at_ahead, array.shape, strict=True)
        )
        return array[np.ix_(*places)]

    def put_together(self, layer: str, whole: Array | None = None) -> Array:
        """Return a layer's features of the whole image, with those at this piece's own positions put in.

        Parameters
        ----------
        whole : with what other pieces have put in; None makes a new array.
        """
        F = self.tape.features[layer]
        if self.piece is None:
            return F
        part = self.piece.parts[layer]
        if whole is None:
            whole = self.device.empty((*self.piece.positions[layer], F.shape[2]), F.dtype)
        whole[part.at] = F[part.inside]
        return whole

    def _size(self, layer: str, ahead: int = 0) -> tuple[int, int]:
        """Return the height and width of ``features``."""
        if self.piece is None:
            height, width, _ = self.tape.features[layer].shape
            return height, width
        rows, columns = self.where(layer, ahead)
        return rows.stop - rows.start, columns.stop - columns.start

    def scale(self, layer: str) -> float:
        """Return how many times as large as they are a layer's features are stored: 1 but for 16-bit numbers."""
        return self.network.scale_of(layer)

    def positions(self, layer: str) -> int:
        """Return M_l, the number of positions in a layer's feature maps of the whole image."""
        plan = self.tape.plan
        height, width = plan.shapes[plan.layers[layer]][:2] if self.piece is None else self.piece.positions[layer]
        return int(height * width)

    def gram(self, layer: str) -> Array:
        """Return a layer's Gram matrix, (N_l, N_l), made once however many terms look at it."""
        return self.guided_gram(Counted(layer))

    def guided_gram(self, of: OfLayer) -> Array:
        """Return the Gram matrix of a layer's features, with positions that count as much as the guide has it."""

        def make() -> Array:
            guide = None if of.guide is None else self.here(of.layer, of.guide)
            with self.device.computing():
                return losses.gram_matrix(self.device, self.features(of.layer), self.scale(of.layer), guide)

        return self.summed((of.layer, of.region), make)

    def total(self, of: OfLayer) -> Array:
        """Return the sum of a layer's features over the positions, (N_l,), in NumPy, as they are stored."""

        def make() -> Array:
            with self.device.computing():
                found = self.device.sum_positions(self.features(of.layer), self.counted(of))
            return fetched(self.device, found)

        return self.summed(("total", of.layer, of.region), make)

    def moments(self, of: OfLayer) -> Moments:
        """Return the moments of the features, made once."""
        M = of.size or self.positions(of.layer)

        def make() -> Moments:
            mu = self.total(of) / (M * self.scale(of.layer))
            return Moments(mu, fetched(self.device, self.guided_gram(of)) / M)

        return self._once(("moments", of.layer, of.region), make)

    def counted(self, of: OfLayer) -> Array:
        """Return how much each position counts, (H_l, W_l), on the device."""
        if of.guide is not None:
            return self.here(of.layer, of.guide)

        def make() -> Array:
            return self.device.put_parameter(np.ones(self._size(of.layer)), np.dtype(np.float64))

        return self._once(("ones", of.layer), make)

    def pairs(self, of: OfLayer, direction: str) -> statistics.Pairs:
        """Return the pairs that begin at this view's positions, of its features ``SHIFT`` ahead, on the device."""

        def make() -> statistics.Pairs:
            own, ahead = self._size(of.layer), self._size(of.layer, SHIFT)
            counts = np.ones(ahead) if of.guide is None else fetched(self.device, self.here(of.layer, of.guide, SHIFT))
            found = statistics.pairs_of(counts, direction, own)
            return replace(found, weights=self.device.put_parameter(found.weights, np.dtype(np.float64)))

        return self._once(("pairs", of.layer, of.region, direction), make)

    def count_pairs(self, of: OfLayer, direction: str) -> float:
        """Return the sum of the pairs' weights."""
        return self.summed(("pairs", of.layer, of.region, direction), lambda: self.pairs(of, direction).size)

    def shifted(self, of: OfLayer, direction: str) -> Array:
        """Return the Gram matrix of a layer's features and themselves shifted, (N_l, N_l), in NumPy, over the pairs."""

        def make() -> Array:
            pairs, F = self.pairs(of, direction), self.features(of.layer, SHIFT)
            with self.device.computing():
                if not pairs.size:
                    return np.zeros((F.shape[2], F.shape[2]))
                return fetched(self.device, self.device.shifted_gram(F, pairs.offset, pairs.weights))

        found = self.summed(("shifted", of.layer, of.region, direction), make)
        return found / (self.count_pairs(of, direction) * self.scale(of.layer) ** 2)

    def projected(self, of: OfLayer) -> Array:
        """Return a layer's features along the directions of ``engine.sliced``, (H_l, W_l, N_l), as they are stored."""
        F = self.features(of.layer)
        V = self.device.put_parameter(sliced.directions(F.shape[2]), np.dtype(np.float64))
        return self.device.gram_product(V, F)

    def quantiles(self, of: OfLayer) -> Array:
        """Return the quantile functions of the features along the directions, (N_l, R), in NumPy."""

        def make() -> Array:
            guide = None if of.guide is None else self.here(of.layer, of.guide)
            count = min(self.positions(of.layer), sliced.QUANTILES)
            with self.device.computing():
                return self.device.quantiles(self.projected(of), count, guide) / self.scale(of.layer)

        return self.summed(("quantiles", of.layer, of.region), make)

    def transported(self, of: OfLayer, targets: Sequence[tuple[float, Array]]) -> tuple[Array, Array]:
        """Return cost and residual of the features' transport, made once.

        The residual, (H_l, W_l, N_l), is ``scale`` times as large as it is, like the features.
        """

        def make() -> tuple[Array, Array]:
            scale, guide = self.scale(of.layer), None if of.guide is None else self.here(of.layer, of.guide)
            scaled = [(share, scale * quantiles) for share, quantiles in targets]
            with self.device.computing():
                cost, residual = self.device.transport_residual(self.projected(of), scaled, guide)
            return cost / scale**2, residual

        return self.summed(("transported", of.layer, of.region), make)

    def summed(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return a sum over positions: of this view's, made once, or as it was handed in.

        All that a term takes of the features to find its value goes through here, and so can be added up over pieces;
        but for what is sorted, of which ``Objective`` makes no pieces.
        """
        if key not in self.sums:
            self.sums[key] = make()
        return self.sums[key]

    @property
    def made_of_sums(self) -> dict[Any, Any]:
        """What has been made of sums over all positions, and so holds for every piece."""
        return {key: made for key, made in self._made.items() if key[0] == "moments"}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def fetched(device: Device, array: Array) -> Array:
    """Return an array in NumPy, in double precision."""
    array = device.fetch(array)
    return array.astype(np.result_type(array.dtype, np.float64), copy=False)


class OfLayer(Protocol):
    """Which positions of a layer are looked at, and how much each counts."""

    @property
    def layer(self) -> str:
        """Its name."""

    @property
    def region(self) -> int:
        """Number of the region, from 1; 0 for all positions."""

    @property
    def guide(self) -> Array | None:
        """(H_l, W_l), how much of each position belongs to the region, on the device; None counts each once."""

    @property
    def size(self) -> float | None:
        """The sum of the guide."""


@dataclass(frozen=True, eq=False)
class Counted:
    """Positions of a layer, as ``OfLayer`` has them."""

    layer: str
    region: int = 0
    guide: Array | None = None
    size: float | None = None
