"""The summands of the loss: what each adds to its value, and to the gradient at what it looks at.

A term looks at the features of one layer, or at the image itself. The paper's two are below; a term of one's own is any
object with the attributes and the two methods of ``Term``, given to ``Objective`` as one of its ``further_terms``:

>>> import numpy as np
>>> class Darkness:
...     "Pulls the image toward black: 1/2 sum x^2, whose derivative is x."
...     kind, name, layer = "darkness", "image", None
...     weight = 1e-3
...     def value(self, view):
...         return 0.5 * (view.image**2).sum()
...     def gradient(self, view):
...         return view.image
>>> isinstance(Darkness(), Term)
True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from engine import losses, sliced, statistics
from engine.network import Network
from engine.ops import Array
from engine.pieces import Piece, Slices, contiguous
from engine.plan import Tape
from engine.scaling import content_gradient_size, style_gradient_size
from engine.statistics import SHIFT, Moments, Target
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
            return _fetched(self.device, found)

        return self.summed(("total", of.layer, of.region), make)

    def moments(self, of: OfLayer) -> Moments:
        """Return the moments of the features, made once."""
        M = of.size or self.positions(of.layer)

        def make() -> Moments:
            mu = self.total(of) / (M * self.scale(of.layer))
            return Moments(mu, _fetched(self.device, self.guided_gram(of)) / M)

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
            counts = np.ones(ahead) if of.guide is None else _fetched(self.device, self.here(of.layer, of.guide, SHIFT))
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
                return _fetched(self.device, self.device.shifted_gram(F, pairs.offset, pairs.weights))

        found = self.summed(("shifted", of.layer, of.region, direction), make)
        return found / (self.count_pairs(of, direction) * self.scale(of.layer) ** 2)

    def projected(self, of: OfLayer) -> Array:
        """Return a layer's features along the directions of ``engine.sliced``, (H_l, W_l, N_l), as they are stored."""
        F = self.features(of.layer)
        V = self.device.put_parameter(sliced.directions(F.shape[2]), np.dtype(np.float64))
        return self.device.gram_product(V, F)

    def steps(self, of: OfLayer) -> Array:
        """Return the distributions of the features along the directions, (N_l, R), in NumPy."""

        def make() -> Array:
            with self.device.computing():
                projected = _fetched(self.device, self.projected(of)).real / self.scale(of.layer)
                counted = _fetched(self.device, self.counted(of))
                return sliced.steps_of(projected.reshape(-1, projected.shape[2]), counted.ravel())

        return self.summed(("steps", of.layer, of.region), make)

    def transported(self, of: OfLayer, steps: Array, key: Any) -> tuple[Array, Array]:
        """Return cost and residual of the features' transport to the distributions of ``key``, made once.

        The residual, (H_l, W_l, N_l), is ``scale`` times as large as it is, like the features.
        """

        def make() -> tuple[Array, Array]:
            scale, guide = self.scale(of.layer), None if of.guide is None else self.here(of.layer, of.guide)
            with self.device.computing():
                cost, residual = self.device.transport_residual(self.projected(of), scale * steps, guide)
            return cost / scale**2, residual

        return self.summed(("transported", of.layer, of.region, key), make)

    def summed(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return a sum over positions: of this view's, made once, or as it was handed in.

        All that a term takes of the features to find its value goes through here, and so can be added up over pieces.
        """
        if key not in self.sums:
            self.sums[key] = make()
        return self.sums[key]

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _fetched(device: Device, array: Array) -> Array:
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


@runtime_checkable
class Term(Protocol):
    """One summand of the loss.

    Parameters
    ----------
    kind : such as ``"content"``; terms are shown by kind and name.
    name : of the term among those of its kind; the layer's, where it looks at one.
    layer : whose features it looks at; None for the image.
    weight : its factor in the total; of content and style, within alpha or beta.
    """

    @property
    def kind(self) -> str:
        """Which kind of term it is."""

    @property
    def name(self) -> str:
        """What it is called among those of its kind."""

    @property
    def layer(self) -> str | None:
        """The layer that it looks at, or None."""

    @property
    def weight(self) -> float:
        """Its factor in the total."""

    def value(self, view: View) -> Any:
        """Return the term without its weight: a number, or on a GPU an array there of one number."""

    def gradient(self, view: View) -> Array:
        """Return the derivative with respect to the layer's features, or to the image, without its weight."""


@dataclass(frozen=True, eq=False)
class Content:
    """Equations 1 and 2: how far a layer's features are from those of the content image.

    Parameters
    ----------
    layer : its name.
    P : (H_l, W_l, N_l), the content image's features as they are stored.
    weight : within alpha.
    m : (H_l, W_l), how much each position counts, on the device; None counts each once.
    """

    layer: str
    P: Array
    weight: float = 1.0
    m: Array | None = None
    kind: ClassVar[str] = "content"

    @property
    def name(self) -> str:
        """The layer's."""
        return self.layer

    def value(self, view: View) -> Any:
        """Return L_content of the layer."""

        def make() -> Any:
            F, P, m = view.features(self.layer), view.here(self.layer, self.P), self._counted(view)
            return losses.content_loss(view.device, F, P, view.scale(self.layer), m)

        return view.summed((self.kind, self.name), make)

    def measure(self, view: View) -> None:
        """Take the sum that the loss is."""
        self.value(view)

    def gradient(self, view: View) -> Array:
        """Return dL_content / dF."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times dL_content / dF, added in place to what flows."""
        F, P, m = view.features(self.layer), view.here(self.layer, self.P), self._counted(view)
        return losses.content_loss_gradient(view.device, F, P, weight, add_to, m)

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of dL_content / dF."""
        P = view.here(self.layer, self.P)
        return content_gradient_size(view.device, view.features(self.layer), P, view.scale(self.layer))

    def _counted(self, view: View) -> Array | None:
        return None if self.m is None else view.here(self.layer, self.m)


@dataclass(frozen=True, eq=False)
class Style:
    """Equations 3 to 6: how far a layer's Gram matrix is from that of the style image.

    Parameters
    ----------
    layer : its name.
    A : (N_l, N_l), the style image's Gram matrix over its number of positions, M_a.
    weight : w_l, within beta; of a region, times its share of the picture.
    region : its number, from 1; 0 for the whole picture.
    guide : (H_l, W_l), how much of each position belongs to the region, on the device; None for the whole picture.
    size : the sum of the guide.
    """

    layer: str
    A: Array
    weight: float = 1.0
    region: int = 0
    guide: Array | None = None
    size: float | None = None
    kind: ClassVar[str] = "style"

    @property
    def name(self) -> str:
        """The layer's, with the number of the region."""
        return f"{self.layer}, region {self.region}" if self.region else self.layer

    def value(self, view: View) -> Any:
        """Return E_l."""
        M_l = self.size or view.positions(self.layer)
        return losses.style_layer_loss(view.device, view.guided_gram(self), self.A, M_l, 1)

    def measure(self, view: View) -> None:
        """Take the Gram matrix."""
        view.guided_gram(self)

    def gradient(self, view: View) -> Array:
        """Return dE_l / dF."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times dE_l / dF, added in place to what flows."""
        F, G, M_l = view.features(self.layer), view.guided_gram(self), self.size or view.positions(self.layer)
        guide = None if self.guide is None else view.here(self.layer, self.guide)
        return losses.style_layer_loss_gradient(view.device, F, G, self.A, 1, weight, add_to, guide, M_l)

    def blank(self, device: Device) -> float:
        """Return E_l where there are no features, F = 0."""
        A = device.fetch(self.A).real.astype(np.float64)
        return float((A * A).sum()) / (4 * len(A) ** 2)

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of dE_l / dF."""
        return style_gradient_size(view.device, view.features(self.layer), view.guided_gram(self), self.A)


VARIATION_UNIT = 1 / 2000
"""What a gray level of the mean step costs with a relative weight of 1, of the style loss of no features.

Found by eye with the original VGG-19 and starts from noise; docs/controls.md has the pictures.
"""

_OF_MOMENTS = {
    "means": (statistics.means_loss, statistics.means_loss_gradient),
    "covariance": (statistics.covariance_loss, statistics.covariance_loss_gradient),
    "wasserstein": (statistics.wasserstein_loss, statistics.wasserstein_loss_gradient),
}
"""The statistics that are functions of a layer's moments: value, and derivative with respect to mu and Q."""


@dataclass(frozen=True, eq=False)
class MomentStyle:
    """How far a statistic of a layer's moments is from that of a style image, see ``engine.statistics``.

    Parameters
    ----------
    statistic : ``"means"``, ``"covariance"`` or ``"wasserstein"``.
    layer : its name.
    target : of the style image.
    weight : within beta.
    region, guide, size : as for ``Style``.
    painting : its number where there are several, from 1; else 0.
    """

    statistic: str
    layer: str
    target: Target
    weight: float = 1.0
    region: int = 0
    guide: Array | None = None
    size: float | None = None
    painting: int = 0
    kind: ClassVar[str] = "style"

    @property
    def name(self) -> str:
        """The layer's, with the statistic and the numbers of region and painting."""
        return _numbered(f"{self.layer}, {self.statistic}", region=self.region, painting=self.painting)

    def value(self, view: View) -> Any:
        """Return the statistic's loss."""
        value, _ = _OF_MOMENTS[self.statistic]
        return view.device.number(value(view.moments(self), self.target))

    def measure(self, view: View) -> None:
        """Take the sums that the moments are made of."""
        view.guided_gram(self)
        view.total(self)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        device, F, m = view.device, view.features(self.layer), view.counted(self)
        of_mean, of_square = self._derivative(view)
        factor = weight / (self.size or view.positions(self.layer))
        of_square = device.put_parameter(2 * factor * of_square, np.dtype(of_square.dtype))
        weighed = F if self.guide is None else device.weigh_positions(F, m)
        total = device.gram_product(of_square, weighed, add_to=add_to)
        # F is stored ``scale`` times as large as it is, and so what stands beside it is wanted.
        of_mean = device.put_parameter(factor * view.scale(self.layer) * of_mean, np.dtype(of_mean.dtype))
        return device.sum_positions_input_gradient(of_mean, m, add_to=total)

    def blank(self, device: Device) -> float:
        """Return the statistic's loss where there are no features, F = 0."""
        N, (value, _) = len(self.target.moments.mu), _OF_MOMENTS[self.statistic]
        return float(value(Moments(np.zeros(N), np.zeros((N, N))), self.target).real)

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of the derivative."""
        (of_mean, of_square), own = self._derivative(view), view.moments(self)
        M, N = self.size or view.positions(self.layer), len(own.mu)
        # The mean of |2 dL/dQ F_k + dL/dmu|^2 over the positions.
        square = 4 * np.trace(of_square @ own.Q @ of_square) + 4 * of_mean @ of_square @ own.mu + of_mean @ of_mean
        return float(np.sqrt(max(square, 0.0) / N) / M)

    def _derivative(self, view: View) -> tuple[Array, Array]:
        _, gradient = _OF_MOMENTS[self.statistic]
        return gradient(view.moments(self), self.target)


@dataclass(frozen=True, eq=False)
class ShiftedStyle:
    """How far the Gram matrix of a layer's features and themselves shifted is from that of a style image.

    Parameters
    ----------
    layer : its name.
    direction : ``"right"`` or ``"down"``.
    target : (N_l, N_l), the style image's matrix over its number of pairs, in NumPy.
    weight : within beta.
    region, guide, painting : as for ``MomentStyle``; a pair counts the product of what its two positions do. Where the
        layer, or the region, is too small for any pair the term is 0.
    """

    layer: str
    direction: str
    target: Array
    weight: float = 1.0
    region: int = 0
    guide: Array | None = None
    painting: int = 0
    kind: ClassVar[str] = "style"
    size: ClassVar[None] = None
    ahead: ClassVar[int] = SHIFT

    @property
    def name(self) -> str:
        """The layer's, with the direction and the numbers of region and painting."""
        return _numbered(f"{self.layer}, shifted {self.direction}", region=self.region, painting=self.painting)

    def value(self, view: View) -> Any:
        """Return the loss of the shifted matrix."""
        there = view.count_pairs(self, self.direction) > 0
        return view.device.number(
            statistics.shifted_loss(view.shifted(self, self.direction), self.target) if there else 0.0
        )

    def measure(self, view: View) -> None:
        """Take the sums over the pairs."""
        if view.count_pairs(self, self.direction):
            view.shifted(self, self.direction)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        device, F, pairs = view.device, view.features(self.layer, self.ahead), view.pairs(self, self.direction)
        if add_to is None:
            add_to = device.weighted_difference(F, F, 0.0)
        if not pairs.size:
            return add_to
        S, size = view.shifted(self, self.direction), view.count_pairs(self, self.direction)
        of_matrix = weight / size * statistics.shifted_loss_gradient(S, self.target)
        of_matrix = device.put_parameter(of_matrix, np.dtype(of_matrix.dtype))
        return device.shifted_product(of_matrix, F, pairs.offset, pairs.weights, add_to=add_to)

    def blank(self, device: Device) -> float:
        """Return the loss of the shifted matrix where there are no features, F = 0."""
        return float(statistics.shifted_loss(np.zeros_like(self.target), self.target).real)

    def gradient_size(self, view: View) -> float:
        """Return about the root mean square of the derivative: as if the features at all positions were alike."""
        size = view.count_pairs(self, self.direction)
        if not size:
            return 0.0
        of_matrix = statistics.shifted_loss_gradient(view.shifted(self, self.direction), self.target)
        mean_square = float(np.trace(_fetched(view.device, view.gram(self.layer)))) / view.positions(self.layer)
        return float(2 * np.linalg.norm(of_matrix) * np.sqrt(mean_square) / len(of_matrix) / size)


@dataclass(frozen=True, eq=False)
class SlicedStyle:
    """How far a layer's features are from being distributed as a style image's: see ``engine.sliced``.

    Parameters
    ----------
    layer : its name.
    target : (N_l, R), the style image's distributions, in NumPy.
    weight : within beta.
    region, guide, size, painting : as for ``MomentStyle``.
    """

    layer: str
    target: Array
    weight: float = 1.0
    region: int = 0
    guide: Array | None = None
    size: float | None = None
    painting: int = 0
    kind: ClassVar[str] = "style"

    @property
    def name(self) -> str:
        """The layer's, with the numbers of region and painting."""
        return _numbered(f"{self.layer}, sliced", region=self.region, painting=self.painting)

    def value(self, view: View) -> Any:
        """Return the mean over the directions of what the transport costs."""
        cost, _ = self._transported(view)
        return view.device.number(cost.mean())

    def measure(self, view: View) -> None:
        """Sort the features."""
        self._transported(view)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        (_, residual), N = self._transported(view), len(self.target)
        V = 2 * weight / (N * (self.size or view.positions(self.layer))) * sliced.directions(N)
        return view.device.gram_product(view.device.put_parameter(V, V.dtype), residual, add_to=add_to)

    def blank(self, device: Device) -> float:
        """Return the loss where there are no features, F = 0."""
        return sliced.blank_loss(self.target)

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of the derivative."""
        residual = _fetched(view.device, self._transported(view)[1]) / view.scale(self.layer)
        M, N = self.size or view.positions(self.layer), len(self.target)
        return float(2 * np.sqrt(np.mean(np.square(residual.real))) / (N * M))

    def _transported(self, view: View) -> tuple[Array, Array]:
        return view.transported(self, self.target, self.painting)


def _numbered(name: str, **numbers: int) -> str:
    return ", ".join([name, *(f"{what} {number}" for what, number in numbers.items() if number)])


@dataclass(frozen=True, eq=False)
class Variation:
    """How far the image's neighboring pixels are apart: see ``losses.total_variation``.

    Parameters
    ----------
    weight : its factor in the total.
    epsilon : in gray levels; None for the squared form.
    relative : whether an objective is to multiply the weight by ``VARIATION_UNIT`` times its style loss of no features.
        A weight of 1 is then of use with any network and painting.
    wrap : whether the image is a tile: see ``losses.total_variation``.
    """

    weight: float
    epsilon: float | None = None
    relative: bool = False
    wrap: bool = False
    kind: ClassVar[str] = "variation"
    name: ClassVar[str] = "image"
    layer: ClassVar[None] = None

    def value(self, view: View) -> Any:
        """Return the total variation of the image."""
        return losses.total_variation(view.device, view.image, self.epsilon, wrap=self.wrap)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to the image."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        return losses.total_variation_gradient(view.device, view.image, self.epsilon, weight, add_to, wrap=self.wrap)


OfStyle = Style | MomentStyle | ShiftedStyle | SlicedStyle
"""The program's own terms of the style."""

OnLayer = Content | OfStyle
"""The program's own terms that look at a layer."""
