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

from engine import losses, statistics
from engine.network import Network
from engine.ops import Array
from engine.plan import Tape
from engine.regions import Guide, at_layer
from engine.scaling import content_gradient_size, style_gradient_size
from engine.statistics import Moments, Target
from kernels import Device


@dataclass(frozen=True)
class View:
    """What an evaluation shows its terms.

    Parameters
    ----------
    network : that was run.
    tape : of its forward pass, with the features as they are stored.
    pixels : the image, where the network computes; None where no term looks at it.
    """

    network: Network
    tape: Tape
    pixels: Array | None = None
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

    def features(self, layer: str) -> Array:
        """Return a layer's features, (H_l, W_l, N_l), stored ``scale`` times as large as they are."""
        return self.tape.features[layer]

    def scale(self, layer: str) -> float:
        """Return how many times as large as they are a layer's features are stored: 1 but for 16-bit numbers."""
        return self.network.scale_of(layer)

    def positions(self, layer: str) -> int:
        """Return M_l, the number of positions in a layer's feature maps."""
        height, width, _ = self.features(layer).shape
        return height * width

    def gram(self, layer: str) -> Array:
        """Return a layer's Gram matrix, (N_l, N_l), made once however many terms look at it."""
        return self._once((layer, 0), lambda: self._made_gram(layer))

    def guided_gram(self, term: Style | MomentStyle) -> Array:
        """Return the Gram matrix that a style term looks at: the layer's, or that of its region, made once."""
        if term.guide is None:
            return self.gram(term.layer)
        return self._once((term.layer, term.region), lambda: self._made_gram(term.layer, term.guide))

    def weighted_gram(self, layer: str, m: Guide | None) -> tuple[Array, float]:
        """Return a layer's Gram matrix, (N_l, N_l), and M_l, with positions that count as much as they are seen.

        Parameters
        ----------
        m : weights of the image's positions, (H, W), 0..1: M_l is their sum. None counts each once.
        """
        if m is None:
            return self.gram(layer), self.positions(layer)
        of_layer = at_layer(m, *self.features(layer).shape[:2])
        placed = self.device.put_parameter(of_layer, np.dtype(np.float64))
        return self._once((layer, "weighted"), lambda: self._made_gram(layer, placed)), float(of_layer.sum())

    def moments(self, term: MomentStyle) -> Moments:
        """Return the moments of the features that a term looks at, made once."""
        return self._once(
            ("moments", term.layer, term.region),
            lambda: self._made_moments(term.layer, self.guided_gram(term), self.counted(term), term.size),
        )

    def weighted_moments(self, layer: str, m: Guide | None) -> Moments:
        """Return the moments of a layer's features, with positions that count as ``weighted_gram`` has it."""
        G, M = self.weighted_gram(layer, m)
        of_layer = (
            np.ones(self.features(layer).shape[:2]) if m is None else at_layer(m, *self.features(layer).shape[:2])
        )
        return self._made_moments(layer, G, self.device.put_parameter(of_layer, np.dtype(np.float64)), M)

    def counted(self, term: MomentStyle) -> Array:
        """Return how much each position counts for a term, (H_l, W_l), on the device."""
        return self.ones(term.layer) if term.guide is None else term.guide

    def ones(self, layer: str) -> Array:
        """Return the weight 1 of each of a layer's positions, (H_l, W_l), on the device."""
        shape = self.features(layer).shape[:2]
        return self._once(("ones", layer), lambda: self.device.put_parameter(np.ones(shape), np.dtype(np.float64)))

    def pairs(self, term: ShiftedStyle) -> statistics.Pairs:
        """Return the pairs of positions that a term looks at, their weights on the device."""

        def make() -> statistics.Pairs:
            shape = self.features(term.layer).shape[:2]
            counts = np.ones(shape) if term.guide is None else _fetched(self.device, term.guide)
            return self._placed(statistics.pairs_of(counts, term.direction))

        return self._once(("pairs", term.layer, term.region, term.direction), make)

    def shifted(self, term: ShiftedStyle) -> Array:
        """Return the matrix that a term looks at, over its number of pairs, (N_l, N_l), in NumPy, made once."""
        return self._once(
            ("shifted", term.layer, term.region, term.direction), lambda: self._shifted(term.layer, self.pairs(term))
        )

    def weighted_shifted(self, layer: str, m: Guide | None, direction: str) -> Array | None:
        """Return that matrix of a layer, with positions that count as ``weighted_gram`` has it; None without a pair."""
        shape = self.features(layer).shape[:2]
        found = statistics.pairs_of(np.ones(shape) if m is None else at_layer(m, *shape), direction)
        return self._shifted(layer, self._placed(found)) if found.size else None

    def _placed(self, pairs: statistics.Pairs) -> statistics.Pairs:
        return replace(pairs, weights=self.device.put_parameter(pairs.weights, np.dtype(np.float64)))

    def _shifted(self, layer: str, pairs: statistics.Pairs) -> Array:
        with self.device.computing():
            found = self.device.shifted_gram(self.features(layer), pairs.offset, pairs.weights)
        return _fetched(self.device, found) / (pairs.size * self.scale(layer) ** 2)

    def _made_gram(self, layer: str, m: Array | None = None) -> Array:
        with self.device.computing():
            return losses.gram_matrix(self.device, self.features(layer), self.scale(layer), m)

    def _made_moments(self, layer: str, G: Array, m: Array, M: float | None) -> Moments:
        M = M or self.positions(layer)
        with self.device.computing():
            total = self.device.sum_positions(self.features(layer), m)
        return Moments(_fetched(self.device, total) / (M * self.scale(layer)), _fetched(self.device, G) / M)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _fetched(device: Device, array: Array) -> Array:
    """Return an array in NumPy, in double precision."""
    array = device.fetch(array)
    return array.astype(np.result_type(array.dtype, np.float64), copy=False)


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
        return losses.content_loss(view.device, view.features(self.layer), self.P, view.scale(self.layer), self.m)

    def gradient(self, view: View) -> Array:
        """Return dL_content / dF."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times dL_content / dF, added in place to what flows."""
        return losses.content_loss_gradient(view.device, view.features(self.layer), self.P, weight, add_to, self.m)

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of dL_content / dF."""
        return content_gradient_size(view.device, view.features(self.layer), self.P, view.scale(self.layer))


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

    def gradient(self, view: View) -> Array:
        """Return dE_l / dF."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times dE_l / dF, added in place to what flows."""
        F, G = view.features(self.layer), view.guided_gram(self)
        return losses.style_layer_loss_gradient(view.device, F, G, self.A, 1, weight, add_to, self.guide, self.size)

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

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        device, F, m = view.device, view.features(self.layer), self.guide
        of_mean, of_square = self._derivative(view)
        factor = weight / (self.size or view.positions(self.layer))
        of_square = device.put_parameter(2 * factor * of_square, np.dtype(of_square.dtype))
        weighed = F if m is None else device.weigh_positions(F, m)
        total = device.gram_product(of_square, weighed, add_to=add_to)
        # F is stored ``scale`` times as large as it is, and so what stands beside it is wanted.
        of_mean = device.put_parameter(factor * view.scale(self.layer) * of_mean, np.dtype(of_mean.dtype))
        return device.sum_positions_input_gradient(of_mean, view.counted(self), add_to=total)

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

    @property
    def name(self) -> str:
        """The layer's, with the direction and the numbers of region and painting."""
        return _numbered(f"{self.layer}, shifted {self.direction}", region=self.region, painting=self.painting)

    def value(self, view: View) -> Any:
        """Return the loss of the shifted matrix."""
        there = view.pairs(self).size > 0
        return view.device.number(statistics.shifted_loss(view.shifted(self), self.target) if there else 0.0)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        device, F, pairs = view.device, view.features(self.layer), view.pairs(self)
        if add_to is None:
            add_to = device.weighted_difference(F, F, 0.0)
        if not pairs.size:
            return add_to
        of_matrix = weight / pairs.size * statistics.shifted_loss_gradient(view.shifted(self), self.target)
        of_matrix = device.put_parameter(of_matrix, np.dtype(of_matrix.dtype))
        return device.shifted_product(of_matrix, F, pairs.offset, pairs.weights, add_to=add_to)

    def blank(self, device: Device) -> float:
        """Return the loss of the shifted matrix where there are no features, F = 0."""
        return float(statistics.shifted_loss(np.zeros_like(self.target), self.target).real)

    def gradient_size(self, view: View) -> float:
        """Return about the root mean square of the derivative: as if the features at all positions were alike."""
        size = view.pairs(self).size
        if not size:
            return 0.0
        of_matrix = statistics.shifted_loss_gradient(view.shifted(self), self.target)
        mean_square = float(np.trace(_fetched(view.device, view.gram(self.layer)))) / view.positions(self.layer)
        return float(2 * np.linalg.norm(of_matrix) * np.sqrt(mean_square) / len(of_matrix) / size)


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
    """

    weight: float
    epsilon: float | None = None
    relative: bool = False
    kind: ClassVar[str] = "variation"
    name: ClassVar[str] = "image"
    layer: ClassVar[None] = None

    def value(self, view: View) -> Any:
        """Return the total variation of the image."""
        return losses.total_variation(view.device, view.image, self.epsilon)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to the image."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        return losses.total_variation_gradient(view.device, view.image, self.epsilon, weight, add_to)


OfStyle = Style | MomentStyle | ShiftedStyle
"""The program's own terms of the style."""

OnLayer = Content | OfStyle
"""The program's own terms that look at a layer."""
