"""The summands of the loss: what each adds to its value, and to the gradient at what it looks at.

A term looks at the features of one layer, or at the image itself. Below are the paper's two, and others; a term of
one's own is any object with the attributes and the two methods of ``Term``, given to ``Objective`` as one of its
``further_terms``:

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

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from engine import losses, sliced, statistics
from engine.ops import Array
from engine.scaling import content_gradient_size, style_gradient_size
from engine.statistics import SHIFT, Moments, Target
from engine.view import View, fetched
from kernels import Device


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
        mean_square = float(np.trace(fetched(view.device, view.gram(self.layer)))) / view.positions(self.layer)
        return float(2 * np.linalg.norm(of_matrix) * np.sqrt(mean_square) / len(of_matrix) / size)


@dataclass(frozen=True, eq=False)
class SlicedStyle:
    """How far a layer's features are from being distributed as the style images': see ``engine.sliced``.

    Parameters
    ----------
    layer : its name.
    targets : of each style image its share, which sum to 1, and its quantile functions, (N_l, R), in NumPy.
    weight : within beta.
    region, guide, size : as for ``Style``.
    """

    layer: str
    targets: tuple[tuple[float, Array], ...]
    weight: float = 1.0
    region: int = 0
    guide: Array | None = None
    size: float | None = None
    kind: ClassVar[str] = "style"

    @property
    def name(self) -> str:
        """The layer's, with the number of the region."""
        return _numbered(f"{self.layer}, sliced", region=self.region)

    def value(self, view: View) -> Any:
        """Return the mean over the directions of what the transport costs."""
        cost, _ = view.transported(self, self.targets)
        return view.device.number(cost.mean())

    def measure(self, view: View) -> None:
        """Sort the features."""
        view.transported(self, self.targets)

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to F."""
        return self.added_gradient(view, 1.0)

    def added_gradient(self, view: View, weight: float, add_to: Array | None = None) -> Array:
        """Return ``weight`` times the derivative, added in place to what flows."""
        _, residual = view.transported(self, self.targets)
        N, M = residual.shape[2], self.size or view.positions(self.layer)
        V = 2 * weight / (N * M) * sliced.directions(N)
        return view.device.gram_product(view.device.put_parameter(V, V.dtype), residual, add_to=add_to)

    def blank(self, device: Device) -> float:
        """Return the loss where there are no features, F = 0."""
        return float(sum(share * np.square(quantiles).mean() for share, quantiles in self.targets))

    def gradient_size(self, view: View) -> float:
        """Return about the root mean square of the derivative: from the mean cost of the transport."""
        cost, _ = view.transported(self, self.targets)
        M = self.size or view.positions(self.layer)
        return float(2 * np.sqrt(max(cost.mean().real, 0.0)) / (len(cost) * M))


def _numbered(name: str, **numbers: int) -> str:
    return ", ".join([name, *(f"{what} {number}" for what, number in numbers.items() if number)])


@dataclass(frozen=True, eq=False)
class Variation:
    """How far the image's neighboring pixels are apart: see ``losses.total_variation``.

    Parameters
    ----------
    weight : its factor in the total.
    epsilon : in gray levels, above 0; None for the squared form.
    relative : whether an objective is to multiply the weight by ``VARIATION_UNIT`` times its style loss of no features.
        A weight of 1 is then of use with any network and style image.
    wrap : whether the image is a tile: see ``losses.total_variation``.
    """

    weight: float
    epsilon: float | None = None
    relative: bool = False
    wrap: bool = False
    kind: ClassVar[str] = "variation"
    name: ClassVar[str] = "image"
    layer: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Raise ValueError for an epsilon that has no gradient at a flat image."""
        if self.epsilon is not None and not 0 < self.epsilon < np.inf:
            raise ValueError(f"the epsilon of a total variation must be a finite number above 0, got {self.epsilon}")

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
