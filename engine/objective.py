"""Losses on layers as one function of the image: its value and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from engine import losses
from engine.errors import NonFiniteError
from engine.network import LayerGradient, Network, Tape
from engine.ops import Array
from engine.replay import Evaluation, Replay
from engine.scaling import content_gradient_size, gradient_factor, style_gradient_size
from kernels import kernels_of, lives_on_cuda, to_cuda, to_host

PAPER_CONTENT_LAYERS = ("conv4_2",)
PAPER_STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")

Layers = str | Iterable[str] | Mapping[str, float]
Styles = Array | Sequence[tuple[Array, float]]
Term = tuple[str, str]
"""Kind of a term, ``"content"`` or ``"style"``, and its layer."""


@dataclass(frozen=True)
class Pending:
    """An evaluation that a GPU may still be working on.

    Parameters
    ----------
    gradient : as a call returns it, where the network computes; what is launched there next may use it.
    finish : waits, sets the objective's ``terms`` and returns the value; raises NonFiniteError as a call does.
    """

    gradient: Array
    finish: Callable[[], Any]


class Objective:
    """The paper's total loss for one network, one photograph and one or several paintings.

    Parameters
    ----------
    network : from ``load_network``.
    content : the photograph, (H, W, 3), RGB, 0..255; None for texture synthesis. The image must have its size.
    style : the painting, of any size, or a list of (image, weight): their Gram matrices are averaged by weight, which
        has the gradient of the weighted sum of their losses. None for content reconstruction.
    content_layers, style_layers : names, or {name: weight}. A content layer's weight is 1 unless given, a style
        layer's 1 / (number of style layers).
    content_weight, style_weight : alpha and beta.
    replay : on a GPU, record the launches of an evaluation and make them again: see ``engine.replay``.

    Raises ValueError for a layer that does not exist, weights that are negative or not finite, an image that is too
    small, or when nothing is left to optimise.

    Attributes
    ----------
    terms : of the last call, ``{"content": {layer: L}, "style": {layer: E_l}}``, without alpha, beta and w_l.
    evaluations : how often it was called.
    """

    def __init__(
        self,
        network: Network,
        content: Array | None = None,
        style: Styles | None = None,
        content_layers: Layers = PAPER_CONTENT_LAYERS,
        style_layers: Layers = PAPER_STYLE_LAYERS,
        content_weight: float = 1e-3,
        style_weight: float = 1.0,
        *,
        replay: bool = False,
    ) -> None:
        self.network = network
        self.content_weight = _checked_weight("content_weight", content_weight)
        self.style_weight = _checked_weight("style_weight", style_weight)
        self.content_layers = _weighted(content_layers, "content") if content is not None else {}
        self.style_layers = _weighted(style_layers, "style") if style is not None else {}
        network.checked([*self.content_layers, *self.style_layers])
        if not self.layers:
            raise ValueError("nothing to optimise: give a content or a style image, and at least one layer for it")
        if not any(self._weights().values()):
            raise ValueError("nothing to optimise: all weights are zero")
        self.shape: tuple[int, ...] | None = None
        self._content: dict[str, Array] = {}
        self._style: dict[str, Array] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found and named by the first call
            if content is not None and self.content_layers:
                self.shape = np.shape(content)
                self._content = network.forward(content, self.content_layers).features
            if style is not None and self.style_layers:
                self._style = self._style_targets(style)
        self.terms: dict[str, dict[str, Any]] = {"content": {}, "style": {}}
        self.evaluations = 0
        self._replay = Replay(self._launch) if replay and network.device == "cuda" else None
        self._gradient_sizes: dict[Term, float] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that a loss looks at, each once."""
        return tuple(dict.fromkeys([*self.style_layers, *self.content_layers]))

    def __call__(self, image: Array) -> tuple[Any, Array]:
        """Return the total loss and its gradient with respect to the image.

        Parameters
        ----------
        image : (H, W, 3), RGB, 0..255, floating (or uint8); complex where the network is.

        Returns
        -------
        value : float (complex where the network is).
        gradient : (H, W, 3), float64, per unit of 0..255; on the GPU if the image lies there, else in NumPy.

        Raises NonFiniteError, with the layer where it began, when value or gradient is not finite.
        """
        # What overflows is found below, and named.
        with np.errstate(over="ignore", invalid="ignore"):
            pending = self.begin(image)
            value = pending.finish()
        stays = self.network.device == "cuda" and lives_on_cuda(image)
        return value, pending.gradient if stays else to_host(pending.gradient)

    def begin(self, image: Array) -> Pending:
        """Do all the work of a call, on a GPU without waiting for it: ``finish`` of what is returned does.

        Parameters
        ----------
        image : as for a call.
        """
        image = self._checked_size(image)
        if self._replay and self.evaluations:  # the first evaluation also finds the scale of the gradients
            gradient, terms, not_finite = self._replay(self.network.placed(self.network.checked_image(image)))
        else:
            gradient, terms, not_finite = self._launch(image)
        return Pending(gradient, partial(self._finish, image, gradient, terms, not_finite))

    def _launch(self, image: Array) -> Evaluation:
        """Do an evaluation's work, on a GPU without waiting for it."""
        tape = self.network.forward(image, self.layers)
        grams = self._grams(tape)
        terms = self._terms(tape, grams)
        tape.gradient_scale = self._gradient_scale(tape, grams, self._weights())
        gradient = self.network.backward(tape, self._gradients(tape, grams, self._weights()))
        return gradient, terms, kernels_of(gradient).count_not_finite(gradient)

    def _gradient_scale(self, tape: Tape, grams: Mapping[str, Array], terms: Iterable[Term]) -> float:
        """Return the power of two that keeps some terms' gradients within the range of 16 bits: the largest near 1.

        It is found at the first evaluation and kept: as the loss falls, so do the gradients, and there is room below.
        """
        if self.network.dtype != np.float16:
            return 1.0
        if self._gradient_sizes is None:
            self._gradient_sizes = {term: self._gradient_size(tape, grams, term) for term in self._weights()}
        return gradient_factor(max(self._gradient_sizes[term] for term in terms))

    def _gradient_size(self, tape: Tape, grams: Mapping[str, Array], term: Term) -> float:
        """Return the root mean square of a weighted term's derivative with respect to the stored features."""
        kind, layer = term
        F, scale = tape.features[layer], self.network.scale_of(layer)
        if kind == "content":
            size = content_gradient_size(F, self._content[layer], scale)
        else:
            size = style_gradient_size(F, grams[layer], self._style[layer])
        return self._weights()[term] / scale * size

    def _finish(self, image: Array, gradient: Array, terms: Mapping[str, Mapping[str, Any]], not_finite: Any) -> Any:
        """Return the total loss, after waiting for its terms and checking them."""
        of_kinds = [(kind, layer, term) for kind, of_kind in terms.items() for layer, term in of_kind.items()]
        *values, not_finite = kernels_of(gradient).numbers([*(term for _, _, term in of_kinds), not_finite])
        self.terms = {"content": {}, "style": {}}
        for (kind, layer, _), value in zip(of_kinds, values, strict=True):
            self.terms[kind][layer] = value
        self.evaluations += 1
        L_style = losses.style_loss(self.terms["style"], self.style_layers)
        L_content = sum(weight * self.terms["content"][layer] for layer, weight in self.content_layers.items())
        value = losses.total_loss(L_content, L_style, self.content_weight, self.style_weight)
        if not np.isfinite(value) or not_finite:
            raise NonFiniteError(self._locate(image))
        return value

    def weighted_terms(self) -> dict[str, dict[str, Any]]:
        """Return the terms of the last call as they stand in the total: times alpha or beta and the layer's weight."""
        if not self.evaluations:
            raise ValueError("the objective has not been called yet, it has no terms")
        weighted: dict[str, dict[str, Any]] = {"content": {}, "style": {}}
        for (kind, layer), weight in self._weights().items():
            weighted[kind][layer] = weight * self.terms[kind][layer]
        return weighted

    def gradient_norms(self, image: Array) -> dict[str, dict[str, float]]:
        """Return the L2 norm of each term's own contribution to the gradient, weights included.

        It tells which term steers the image, which the sizes of the losses do not. Takes one forward pass and one
        backward pass for each term.
        """
        tape = self.network.forward(self._checked_size(image), self.layers)
        grams = self._grams(tape)
        norms: dict[str, dict[str, float]] = {"content": {}, "style": {}}
        for (kind, layer), weight in self._weights().items():
            copy = tape.copy()
            copy.gradient_scale = self._gradient_scale(tape, grams, [(kind, layer)])
            gradients = self._gradients(copy, grams, {(kind, layer): weight})
            norms[kind][layer] = float(np.linalg.norm(to_host(self.network.backward(copy, gradients))))
        return norms

    def layer_gradients(self, tape: Tape) -> dict[str, LayerGradient]:
        """Return what ``Network.backward`` needs for the total loss's gradient, for the image that made ``tape``."""
        return self._gradients(tape, self._grams(tape), self._weights())

    def _weights(self) -> dict[Term, float]:
        """Return each term's weight in the total."""
        weights = {("content", layer): self.content_weight * weight for layer, weight in self.content_layers.items()}
        return weights | {("style", layer): self.style_weight * w_l for layer, w_l in self.style_layers.items()}

    def _style_targets(self, style: Styles) -> dict[str, Array]:
        """Return A / M_a of each style layer, averaged over the paintings by their weights."""
        paintings = [(style, 1.0)] if isinstance(style, np.ndarray) else list(style)
        if not paintings:
            raise ValueError("the list of style images is empty")
        if not all(isinstance(painting, tuple) and len(painting) == 2 for painting in paintings):
            raise ValueError("style must be one image or a list of (image, weight)")
        shares = [_checked_weight("the weight of a style image", share) for _, share in paintings]
        if max(shares) <= 0:
            raise ValueError("the weights of the style images are all zero")
        shares = [share / max(shares) for share in shares]  # the sum of very large ones would be infinite
        targets: dict[str, Array] = {}
        for (image, _), share in zip(paintings, shares, strict=True):
            tape = self.network.forward(image, self.style_layers)
            for layer, G in self._grams(tape).items():
                M_a = tape.features[layer].shape[0] * tape.features[layer].shape[1]
                targets[layer] = targets.get(layer, 0) + to_host(G) * (share / sum(shares) / M_a)
        if self.network.device == "cuda":
            return {layer: to_cuda(A.astype(np.float32)) for layer, A in targets.items()}
        return targets

    def _grams(self, tape: Tape) -> dict[str, Array]:
        workers = self.network.workers
        with workers.single_threaded_blas():
            scale = self.network.scale_of
            return {
                layer: losses.gram_matrix(tape.features[layer], workers, scale(layer)) for layer in self.style_layers
            }

    def _terms(self, tape: Tape, grams: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
        F = tape.features
        return {
            "content": {
                layer: losses.content_loss(F[layer], P, self.network.scale_of(layer))
                for layer, P in self._content.items()
            },
            "style": {
                layer: losses.style_layer_loss(grams[layer], A, F[layer].shape[0] * F[layer].shape[1], 1)
                for layer, A in self._style.items()
            },
        }

    def _gradients(
        self, tape: Tape, grams: Mapping[str, Array], weights: Mapping[Term, float]
    ) -> dict[str, LayerGradient]:
        """Return, for each layer, a function for the derivative of the weighted terms with respect to its features."""
        workers = self.network.workers

        def gradient(layer: str, flowing: Array | None) -> Array:
            F, total = tape.features[layer], flowing
            # With F stored s times as large, and the gradient with respect to that: twice a division by s.
            factor = tape.gradient_scale / self.network.scale_of(layer) ** 2
            if ("style", layer) in weights:
                G, A, weight = grams[layer], self._style[layer], factor * weights["style", layer]
                total = losses.style_layer_loss_gradient(F, G, A, 1, weight, total, workers)
            if ("content", layer) in weights:
                total = losses.content_loss_gradient(F, self._content[layer], factor * weights["content", layer], total)
            assert total is not None  # a layer is listed for at least one of its terms
            return total

        return {layer: partial(gradient, layer) for layer in dict.fromkeys(layer for _, layer in weights)}

    def _checked_size(self, image: Array) -> Array:
        if self.shape is not None and np.shape(image) != self.shape:
            raise ValueError(f"the image has the shape {np.shape(image)}, the content image {self.shape}")
        return image

    def _locate(self, image: Array) -> str:
        """Return a sentence that names where the first value that is not finite came up."""
        where: list[str] = []

        def observe(direction: str, label: str, array: Array) -> None:
            kernels = kernels_of(array)
            if not where and kernels.numbers([kernels.count_not_finite(array)])[0]:
                where.append(f"{label} ({direction} pass)")

        with np.errstate(all="ignore"):
            tape = self.network.forward(image, self.layers, observe=partial(observe, "forward"))
            if not where:
                grams = self._grams(tape)
                kernels = kernels_of(tape.features[self.layers[0]])
                for kind, terms in self._terms(tape, grams).items():
                    for layer, term in terms.items():
                        if not where and not np.isfinite(kernels.numbers([term])[0]):
                            where.append(f"the {kind} loss of {layer!r}")
            if not where:
                gradients = self._gradients(tape, grams, self._weights())
                self.network.backward(tape, gradients, observe=partial(observe, "backward"))
        return f"the loss or its gradient is not finite: it began at {where[0] if where else 'the sum of the terms'}"


def layer_names(layers: Layers) -> list[str]:
    """Return the names in a choice of layers: one name, several, or the keys of {name: weight}."""
    return [layers] if isinstance(layers, str) else list(layers)


def _weighted(layers: Layers, kind: str) -> dict[str, float]:
    """Return the weight of each layer, filled in where only names are given."""
    if isinstance(layers, Mapping):
        return {name: _checked_weight(f"the weight of {name!r}", weight) for name, weight in layers.items()}
    names = layer_names(layers)
    if len(set(names)) < len(names):
        raise ValueError(f"a {kind} layer is named twice in {', '.join(names)}")
    weight = 1.0 if kind == "content" else 1.0 / max(len(names), 1)
    return dict.fromkeys(names, weight)


def _checked_weight(name: str, weight: float) -> float:
    if not np.isfinite(weight) or weight < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {weight}")
    return float(weight)
