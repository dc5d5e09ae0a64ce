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

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from engine import losses
from engine.network import Network
from engine.ops import Array
from engine.plan import Tape
from engine.regions import Guide, at_layer
from engine.scaling import content_gradient_size, style_gradient_size
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
    _grams: dict[str, Array] = field(default_factory=dict)

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
        if layer not in self._grams:
            self._grams[layer] = self._made_gram(layer)
        return self._grams[layer]

    def guided_gram(self, term: Style) -> Array:
        """Return the Gram matrix that a style term looks at: the layer's, or that of its region, made once."""
        if term.guide is None:
            return self.gram(term.layer)
        if term.name not in self._grams:
            self._grams[term.name] = self._made_gram(term.layer, term.guide)
        return self._grams[term.name]

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
        return self._made_gram(layer, placed), float(of_layer.sum())

    def _made_gram(self, layer: str, m: Array | None = None) -> Array:
        with self.device.computing():
            return losses.gram_matrix(self.device, self.features(layer), self.scale(layer), m)


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

    def gradient_size(self, view: View) -> float:
        """Return the root mean square of dE_l / dF."""
        return style_gradient_size(view.device, view.features(self.layer), view.guided_gram(self), self.A)


@dataclass(frozen=True, eq=False)
class Variation:
    """How far the image's neighboring pixels are apart: see ``losses.total_variation``.

    Parameters
    ----------
    weight : its factor in the total.
    epsilon : in gray levels; None for the squared form.
    """

    weight: float
    epsilon: float | None = None
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
