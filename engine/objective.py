"""The loss as one function of the image: a sum of terms, its value and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from engine import losses
from engine.errors import NonFiniteError, unknown_name
from engine.network import Network
from engine.ops import Array
from engine.pieces import EDGES, Piece, added_up, contiguous, zeros
from engine.plan import LayerGradient, Tape
from engine.regions import Region
from engine.replay import Evaluation, Replay
from engine.scaling import gradient_factor
from engine.selection import (
    PAPER_CONTENT_LAYERS,
    PAPER_STATISTICS,
    PAPER_STYLE_LAYERS,
    Layers,
    Statistics,
    checked_weight,
    used_statistics,
    weighted_layers,
)
from engine.stages import Passes, Stage
from engine.statistics import positions_ahead
from engine.targets import StyleParts, Styles, content_terms, region_terms, style_terms
from engine.terms import (
    VARIATION_UNIT,
    MomentStyle,
    OfStyle,
    OnLayer,
    ShiftedStyle,
    SlicedStyle,
    Term,
    Variation,
)
from engine.view import View
from kernels import Cuda, Device

_PAPER_KINDS = ("content", "style")


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a stage of the network has seen of an image, piece by piece.

    Parameters
    ----------
    stage : of the network.
    begun : what it began with, where the network computes: the image, or a layer's features.
    view : of the last piece, with the sums over all.
    kept : of each piece what was kept for its backward pass, or None.
    """

    stage: Stage
    begun: Array
    view: View
    kept: Sequence[Tape | None]


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


@dataclass(frozen=True)
class Standing:
    """How the terms of an objective stand at an image, by kind and name.

    Parameters
    ----------
    terms : as they are in the total, see ``Objective.weighted_terms``.
    gradient_norms : of their contributions to the gradient, see ``Objective.gradient_norms``.
    """

    terms: Mapping[str, Mapping[str, Any]]
    gradient_norms: dict[str, dict[str, float]]


class Objective:
    """The paper's total loss for one network, one content image and one or several style images.

    Parameters
    ----------
    network : from ``load_network``.
    content : the content image, (H, W, 3), RGB, 0..255; None for texture synthesis. The image must have its size.
    style : the style image, of any size, or a list of (image, weight): their Gram matrices are averaged by weight,
        which has the gradient of the weighted sum of their losses. None for content reconstruction. With an alpha,
        (H, W, 4), 0..255, each part of it counts as much as it is seen: see ``engine.transparency``. Also a style for
        each style layer, {layer: style}, see ``engine.targets.at_scales``.
    content_layers, style_layers : names, or {name: weight}. A content layer's weight is 1 unless given, a style
        layer's 1 / (number of style layers).
    content_weight, style_weight : alpha and beta.
    style_statistics : of ``engine.statistics.STATISTICS``, what the style consists of: names, or {name: weight}.
    further_terms : summands besides content and style, see ``engine.terms``.
    regions : parts of the picture with styles of their own, see ``engine.regions``; in place of ``style``.
    content_mask : (H, W), 0 and above, how much each position of the content image counts; None counts each once.
    replay : on a GPU, record the launches of an evaluation and make them again: see ``engine.replay``.
    edges : what the network sees beyond the image's edges, of ``engine.pieces.EDGES``: ``"zero"`` as the network itself
        has it, ``"reflect"``, ``"repeat"``, or ``"wrap"``, for images that are to be tiled. The style images go on
        likewise; where that is by their other side, they are mirrored, as they have a seam.
    piece : (height, width) of the pieces that images are cut into, None for all of it along an axis: the same loss in
        less memory, see ``engine.pieces``. None does not cut them, and the statistic ``"sliced"`` cannot be cut.
    keep : the layers whose features are kept of each piece for its backward pass, with all that this needs of the
        others: these are computed again, and no more. None keeps nothing, and takes the least memory.
    waist : a layer up to which images are computed in pieces, and from whose features all behind it is computed as a
        whole: see ``engine.stages``. With the edges ``"zero"`` only. None has no waist. The style images have none.

    Raises ValueError for a layer that does not exist, a waist that the network goes around, weights that are negative
    or not finite, an image that is too small, or when nothing is left to optimize.

    Attributes
    ----------
    terms : of the last call, ``{"content": {layer: L}, "style": {layer: E_l}}``, without alpha, beta and w_l; the
        further terms by their kind and name, without their weights.
    evaluations : how often it was called.
    summands : the terms themselves, those of the style first.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> random = np.random.default_rng(0)
    >>> content, style = random.uniform(0, 255, (32, 40, 3)), random.uniform(0, 255, (24, 24, 3))
    >>> objective = Objective(network, content, style, style_layers={"conv1_1": 0.5, "conv2_1": 0.5})
    >>> value, gradient = objective(content)
    >>> gradient.shape, gradient.dtype
    ((32, 40, 3), dtype('float64'))
    >>> objective.terms["content"]  # at the content image itself
    {'conv4_2': 0.0}
    >>> sorted(objective.terms["style"])
    ['conv1_1', 'conv2_1']
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
        style_statistics: Statistics = PAPER_STATISTICS,
        further_terms: Sequence[Term] = (),
        regions: Sequence[Region] = (),
        content_mask: Array | None = None,
        replay: bool = False,
        edges: str = "zero",
        piece: tuple[int | None, int | None] | None = None,
        keep: Iterable[str] | None = None,
        waist: str | None = None,
    ) -> None:
        if edges not in EDGES:
            raise ValueError(unknown_name("edges", edges, EDGES))
        if network.device.kind == "cuda" and (edges != "zero" or piece is not None or waist is not None):
            raise ValueError("pieces, and other edges than zero, are computed on the CPU alone: choose the device cpu")
        if edges != "zero" and waist is not None:
            raise ValueError(f"with the edges {edges!r} there is no waist: leave it out, or choose the edges zero")
        self._keep = None if keep is None else frozenset(keep)
        # In pieces it is memory that counts: what an arena keeps is not there for the arrays of another stage.
        self._arena = network.device.arena() if piece is None else None
        self.content_weight = checked_weight("content_weight", content_weight)
        self.style_weight = checked_weight("style_weight", style_weight)
        self.content_layers = weighted_layers(content_layers, "content") if content is not None else {}
        if regions and style is not None:
            raise ValueError("give one style for the whole picture, or regions with styles of their own, not both")
        self.style_layers = weighted_layers(style_layers, "style") if style is not None or regions else {}
        parts = StyleParts(self.style_layers, used_statistics(style_statistics))
        self._passes = Passes(network, edges, piece, waist, positions_ahead(parts.layers, parts.statistics))
        further = list(further_terms)
        layers = network.checked([*self.content_layers, *self.style_layers, *_layers_of(further)])
        if piece not in (None, (None, None)) and parts.layers and "sliced" in parts.statistics:
            raise ValueError(
                "the statistic 'sliced' sorts all of a layer and cannot be computed in pieces: leave out one of both"
            )
        in_pieces = layers if piece is not None else []
        _check_further(further, in_pieces if waist is None else network.divided(layers, waist)[0])
        self.shape: tuple[int, ...] | None = None
        if content is not None and self.content_layers:
            self.shape = np.shape(content)
        elif regions:
            self.shape = (*np.shape(regions[0].mask)[:2], 3)
        if not (self.content_layers or self.style_layers or further):
            raise ValueError("nothing to optimize: give a content or a style image, and at least one layer for it")
        alpha, beta = self.content_weight, self.style_weight
        weights = [alpha * weight for weight in self.content_layers.values()]
        most = max(parts.statistics.values())
        weights += [beta * weight * most for weight in self.style_layers.values()]
        if not any([*weights, *(term.weight for term in further)]):
            raise ValueError("nothing to optimize: all weights are zero")
        with self.device.computing(), np.errstate(over="ignore", invalid="ignore"):
            # What overflows is found and named by the first call.
            styles = [] if style is None else style_terms(self._passes, parts, style)
            styles += region_terms(self._passes, parts, regions, self.shape or ())
            contents = []
            if content is not None:
                contents = content_terms(self._passes, content, self.content_layers, content_mask)
            # Style before content: the order in which their gradients are added up.
            self.summands: tuple[Term, ...] = (
                *styles,
                *contents,
                *(self._with_unit(term, styles) for term in further),
            )
        self.terms = self._by_kind()
        self.evaluations = 0
        self._stages: tuple[tuple[int, ...], tuple[Stage, ...]] | None = None
        # What is computed on the host in between cannot be recorded.
        on_the_host = MomentStyle | ShiftedStyle | SlicedStyle
        replay = replay and not any(isinstance(term, on_the_host) for term in self.summands)
        replay = replay and edges == "zero" and piece is None
        self._replay = Replay(network.device, self._launch) if replay and isinstance(network.device, Cuda) else None
        self._gradient_sizes: dict[int, float] | None = None

    @property
    def network(self) -> Network:
        """What the image is seen through."""
        return self._passes.network

    @property
    def device(self) -> Device:
        """Where it computes."""
        return self.network.device

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that a term looks at, each once."""
        return tuple(dict.fromkeys(_layers_of(self.summands)))

    @property
    def term_names(self) -> dict[str, list[str]]:
        """The names of the terms by their kind, content and style first."""
        return {kind: [term.name for term in self.summands if term.kind == kind] for kind in self._by_kind()}

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
        return value, pending.gradient if self.device.holds(image) else self.device.fetch(pending.gradient)

    def begin(self, image: Array) -> Pending:
        """Do all the work of a call; on a GPU, ``finish`` of the result waits for it.

        Parameters
        ----------
        image : as for a call.
        """
        image = self._checked_size(image)
        if self._replay and self.evaluations:  # the first evaluation also finds the scale of the gradients
            gradient, terms, not_finite = self._replay(self.network.placed(self.network.checked_image(image)))
        else:
            gradient, terms, not_finite = self._launch(image)
        return Pending(gradient, partial(self._finish, image, terms, not_finite))

    def value(self, image: Array) -> Any:
        """Return the total loss without its gradient, in about half of a call's time; errors are those of a call."""
        image = self._checked_size(image)
        with np.errstate(over="ignore", invalid="ignore"), self.device.computing(), self.device.reusing(self._arena):
            return self._finish(image, self._values(self._look(image)), 0)

    def without(self, layer: str) -> Objective:
        """Return the objective without the terms on a layer, with the targets of the others."""
        fewer = copy(self)
        fewer.summands = tuple(term for term in self.summands if term.layer != layer)
        fewer.content_layers = {name: weight for name, weight in self.content_layers.items() if name != layer}
        fewer.style_layers = {name: weight for name, weight in self.style_layers.items() if name != layer}
        fewer._begin_anew()
        return fewer

    def through(self, network: Network) -> Objective:
        """Return the objective with the same terms for another network, of the same layers."""
        other = copy(self)
        other._passes = replace(self._passes, network=network)
        other._begin_anew()
        return other

    def _begin_anew(self) -> None:
        self.terms, self.evaluations = self._by_kind(), 0
        self._stages = self._replay = None

    def _give_back(self) -> None:
        """Let go of the memory that evaluations share: what follows takes memory of its own beside it."""
        if self._arena is not None:
            self._arena.give_back()

    def _launch(self, image: Array) -> Evaluation:
        """Do an evaluation's work; on a GPU, launch it."""
        # What a term computes in NumPy does not depend on the number of threads either.
        with self.device.computing(), self.device.reusing(self._arena):
            seen = self._look(image)
            terms = self._values(seen)
            gradient = self._gradient(seen, self.summands)
        return gradient, terms, self.device.count_not_finite(gradient)

    def _look(self, image: Array, **options: Any) -> list[_Seen]:
        """Run the network forward, stage by stage, and take the sums over positions that the terms need."""
        image = self.network.checked_image(image)
        looks_at_image = any(term.layer is None for term in self.summands)
        pixels = self.network.placed(_floating(image)) if looks_at_image else None
        seen, begun = list[_Seen](), self.network.placed(image)
        for stage in self.stages(image.shape):
            sums, kept, behind = dict[Any, Any](), list[Tape | None](), None
            for view in self._passes.views(stage, begun, pixels, **options):
                for term in self.summands:
                    if isinstance(term, OnLayer) and term.layer in stage.layers:
                        term.measure(view)
                added_up(sums, view.sums)
                if stage.end is not None:
                    behind = view.put_together(stage.end, behind)
                if stage.end is None and view.piece is stage.pieces[-1]:  # where the way back begins
                    kept.append(view.tape)
                else:
                    kept.append(None if self._keep is None else view.tape.with_features(self._keep))
                    view = replace(view, tape=Tape(view.tape.plan, {}))
                summed = replace(view, sums=sums, _made={})
                del view  # and what else it holds, before the next
            seen.append(_Seen(stage, begun, summed, kept))
            if behind is not None:
                begun = behind
        return seen

    def pieces(self, shape: tuple[int, ...]) -> Sequence[Piece | None]:
        """Return the pieces that images of a shape, (H, W, 3), are computed in, as far as a waist if there is one.

        None stands for the image as it is.
        """
        return self.stages(shape)[0].pieces

    def stages(self, shape: tuple[int, ...]) -> tuple[Stage, ...]:
        """Return the parts of the network that images of a shape, (H, W, 3), are computed by, the image's first."""
        if self._stages is None or self._stages[0] != shape:
            self._stages = shape, self._passes.stages(shape, self.layers)
        return self._stages[1]

    def _values(self, seen: Sequence[_Seen]) -> dict[str, dict[str, Any]]:
        """Return each term's value by kind and name."""
        values = self._by_kind()
        for term in self.summands:
            view = next(one.view for one in seen if term.layer is None or term.layer in one.stage.layers)
            values[term.kind][term.name] = term.value(view)
        return values

    def _gradient(self, seen: list[_Seen], terms: Sequence[Term], *, again: bool = False, **options: Any) -> Array:
        """Return the gradient of the weighted sum of some terms with respect to the image.

        Parameters
        ----------
        again : whether what was seen is needed once more; else it is used up.
        """
        of_image = [term for term in terms if term.layer is None]
        gradient: Array | None = None  # with respect to what a stage began with
        image, seen = seen[0].view, seen.copy() if again else seen
        while seen:
            one = seen.pop()
            of_stage = [term for term in terms if term.layer in one.stage.layers]
            if of_stage or gradient is not None:
                gradient = self._stage_gradient(one, of_stage, gradient, again, **options)
        for term in of_image:
            gradient = _added(term, image, self.weight_of(term), gradient, image.image)
        assert gradient is not None  # there is at least one term
        return gradient

    def _stage_gradient(
        self, seen: _Seen, terms: Sequence[Term], behind: Array | None, again: bool, **options: Any
    ) -> Array:
        """Return the gradient with respect to what a stage began with.

        Parameters
        ----------
        terms : on the stage's layers.
        behind : the gradient of all else with respect to what the stage ended with, or None.
        """
        stage, gradient = seen.stage, None
        # The last piece first: what it left may still be there.
        for piece, kept in list(zip(stage.pieces, seen.kept, strict=True))[::-1]:
            plan = stage.plan(self.network, piece)
            tape = kept.copy() if kept and again else kept
            if tape is None:
                tape = plan.forward(self._passes.part(seen.begun, piece))
            elif left_out := set(stage.outputs) - tape.features.keys():
                tape.features |= plan.features(self._passes.part(seen.begun, piece), left_out)
            view = replace(seen.view, tape=tape, piece=piece, _made=seen.view.made_of_sums)
            tape.gradient_scale = self._gradient_scale(view, terms)
            gradients = self._layer_gradients(view, terms)
            if stage.end is not None and behind is not None:
                gradients[stage.end] = partial(_handed_down, view, stage.end, behind)
            of_piece = plan.backward(tape, gradients, **options)
            if piece is None:
                gradient = of_piece
            else:
                gradient = zeros(self.device, seen.begun.shape, of_piece.dtype) if gradient is None else gradient
                piece.give_back(of_piece, gradient)
            del view, tape, of_piece, gradients
        assert gradient is not None  # a stage has at least one piece
        return gradient

    def _gradient_scale(self, view: View, terms: Iterable[Term]) -> float:
        """Return the power of two that keeps some terms' gradients within the range of 16 bits: the largest near 1.

        It is found at the first evaluation and kept: as the loss falls, so do the gradients, and there is room below.
        """
        if self.network.dtype != np.float16:
            return 1.0
        if self._gradient_sizes is None:
            self._gradient_sizes = {
                id(term): self.weight_of(term) / view.scale(term.layer) * term.gradient_size(view)
                for term in self.summands
                if isinstance(term, OnLayer)
            }
        return gradient_factor(max((self._gradient_sizes.get(id(term), 0.0) for term in terms), default=0.0))

    def _finish(self, image: Array, terms: Mapping[str, Mapping[str, Any]], not_finite: Any) -> Any:
        """Return the total loss, after waiting for its terms and checking them."""
        self.terms, (not_finite,) = self._fetched(terms, not_finite)
        self.evaluations += 1
        w = {kind: {term.name: term.weight for term in self.summands if term.kind == kind} for kind in _PAPER_KINDS}
        L_style = losses.style_loss(self.terms["style"], w["style"])
        L_content = sum(weight * self.terms["content"][name] for name, weight in w["content"].items())
        value = losses.total_loss(L_content, L_style, self.content_weight, self.style_weight)
        for term in self.summands:
            if term.kind not in _PAPER_KINDS:
                value += term.weight * self.terms[term.kind][term.name]
        if not np.isfinite(value) or not_finite:
            raise NonFiniteError(self._locate(image))
        return value

    def _fetched(
        self, terms: Mapping[str, Mapping[str, Any]], *further: Any
    ) -> tuple[dict[str, dict[str, Any]], list[Any]]:
        """Return terms, and further numbers, fetched from the device; a GPU is waited for once."""
        of_kinds = [(kind, name, term) for kind, of_kind in terms.items() for name, term in of_kind.items()]
        numbers = self.device.numbers([*(term for _, _, term in of_kinds), *further])
        fetched = self._by_kind()
        for (kind, name, _), value in zip(of_kinds, numbers, strict=False):
            fetched[kind][name] = value
        return fetched, list(numbers[len(of_kinds) :])

    def weight_of(self, term: Term) -> float:
        """Return a term's factor in the total: its weight, times alpha for content and beta for style."""
        return {"content": self.content_weight, "style": self.style_weight}.get(term.kind, 1.0) * term.weight

    def weighted_terms(self) -> dict[str, dict[str, Any]]:
        """Return the terms of the last call as they are in the total: times alpha or beta and their weights."""
        if not self.evaluations:
            raise ValueError("the objective has not been called yet, it has no terms")
        return self.weighted(self.terms)

    def gradient_norms(self, image: Array) -> dict[str, dict[str, float]]:
        """Return the L2 norm of each term's own contribution to the gradient, weights included.

        This tells which term steers the image; the losses do not. It takes one forward pass, and one backward pass for
        each term; what is computed in pieces, a forward pass for each term too.
        """
        return self.standing(image).gradient_norms

    def standing(self, image: Array) -> Standing:
        """Return how the terms stand at an image: their values and ``gradient_norms``, in the time of the norms."""
        norms = self._by_kind()
        self._give_back()
        with self.device.computing():
            seen = self._look(self._checked_size(image))
            terms, _ = self._fetched(self._values(seen))
            for term in self.summands:
                gradient = self.device.fetch(self._gradient(seen, [term], again=True))
                norms[term.kind][term.name] = float(np.linalg.norm(gradient))
        return Standing(self.weighted(terms), norms)

    def weighted(self, terms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return terms, as ``terms`` has them, as they are in the total: times alpha or beta and their weights."""
        weighted = self._by_kind()
        for term in self.summands:
            weighted[term.kind][term.name] = self.weight_of(term) * terms[term.kind][term.name]
        return weighted

    def layer_gradients(self, tape: Tape) -> dict[str, LayerGradient]:
        """Return the layers' derivatives that ``Network.backward`` needs, at the image that made ``tape``."""
        view = View(self.network, tape)
        return self._layer_gradients(view, [term for term in self.summands if term.layer is not None])

    def _by_kind(self) -> dict[str, dict[str, Any]]:
        """Return an empty dictionary for each kind of term, content and style first."""
        return {kind: {} for kind in dict.fromkeys([*_PAPER_KINDS, *(term.kind for term in self.summands)])}

    def _with_unit(self, term: Term, styles: Sequence[OfStyle]) -> Term:
        """Return a term with its own weight in place of a relative one."""
        if not (isinstance(term, Variation) and term.relative):
            return term
        blank = sum(self.weight_of(of_style) * of_style.blank(self.device) for of_style in styles)
        return replace(term, weight=term.weight * VARIATION_UNIT * (blank or 1.0), relative=False)

    def _layer_gradients(self, view: View, terms: Sequence[Term]) -> dict[str, LayerGradient]:
        """Return, for each layer, a function that adds its terms' weighted derivatives to what flows there."""

        def gradient(layer: str, flowing: Array | None) -> Array:
            # With F stored s times as large, and the gradient with respect to that: twice a division by s.
            factor, total = view.tape.gradient_scale / view.scale(layer) ** 2, flowing
            for term in terms:
                if term.layer == layer and view.piece is None:
                    total = _added(term, view, factor * self.weight_of(term), total, view.features(layer))
                elif term.layer == layer:
                    total = _added_inside(term, view, factor * self.weight_of(term), total)
            assert total is not None  # a layer is listed for at least one of its terms
            return total

        return {layer: partial(gradient, layer) for layer in dict.fromkeys(_layers_of(terms))}

    def _checked_size(self, image: Array) -> Array:
        if self.shape is not None and np.shape(image) != self.shape:
            raise ValueError(f"the image has the shape {np.shape(image)}, the content image {self.shape}")
        return image

    def _locate(self, image: Array) -> str:
        """Return a sentence that names where the first value that is not finite came up."""
        device, where = self.device, list[str]()

        def observe(direction: str, label: str, array: Array) -> None:
            if not where and device.numbers([device.count_not_finite(array)])[0]:
                where.append(f"{label} ({direction} pass)")

        self._give_back()
        with np.errstate(all="ignore"):
            seen = self._look(image, observe=partial(observe, "forward"))
            if not where:
                for kind, terms in self._values(seen).items():
                    for name, term in terms.items():
                        if not where and not np.isfinite(device.numbers([term])[0]):
                            where.append(f"the {kind} loss of {name!r}")
            if not where:
                self._gradient(seen, self.summands, observe=partial(observe, "backward"))
        return f"the loss or its gradient is not finite: it began at {where[0] if where else 'the sum of the terms'}"


def _added(term: Term, view: View, weight: float, flowing: Array | None, at: Array) -> Array:
    """Return ``weight`` times a term's derivative with respect to ``at``, added to what flows there."""
    if isinstance(term, OnLayer | Variation):
        return term.added_gradient(view, weight, flowing)
    own = term.gradient(view)
    if np.shape(own) != at.shape:
        raise ValueError(
            f"the gradient of {term.kind} {term.name!r} has the shape {np.shape(own)}, what it looks at {at.shape}"
        )
    own = weight * own
    return own if flowing is None else flowing + own.astype(flowing.dtype, copy=False)


def _added_inside(term: Term, view: View, weight: float, flowing: Array | None) -> Array:
    """Return ``_added`` where a piece's own positions are; the rest of what flows stays as it is."""
    assert term.layer is not None
    features, ahead = view.tape.features[term.layer], getattr(term, "ahead", 0)
    if flowing is None:
        flowing = zeros(view.device, features.shape, features.dtype)
    inside = flowing[view.where(term.layer, ahead)]
    block = contiguous(inside)
    block = _added(term, view, weight, block, inside)
    if block is not inside:
        inside[...] = block
    return flowing


def _handed_down(view: View, layer: str, whole: Array, flowing: Array | None) -> Array:
    """Return the gradient of a layer's features of the whole image at a piece's own positions, and 0 at its halo's."""
    if view.piece is None:
        return whole
    features = view.tape.features[layer]
    total = zeros(view.device, features.shape, features.dtype)
    total[view.where(layer)] = view.here(layer, whole)
    return total


def _layers_of(terms: Iterable[Term]) -> list[str]:
    return [term.layer for term in terms if term.layer is not None]


def _check_further(terms: Sequence[Term], in_pieces: Sequence[str]) -> None:
    """Raise ValueError for further terms that cannot be added to the paper's.

    Parameters
    ----------
    in_pieces : the layers that are.
    """
    for term in terms:
        if term.layer in in_pieces:
            raise ValueError(
                f"the term {term.kind} {term.name!r} looks at a layer as a whole: it cannot be computed in pieces"
            )
        if term.kind in _PAPER_KINDS:
            raise ValueError(f"a further term is of the kind {term.kind!r}, which is the paper's: call it otherwise")
        checked_weight(f"the weight of {term.kind} {term.name!r}", term.weight)
    names = [(term.kind, term.name) for term in terms]
    if len(set(names)) < len(names):
        raise ValueError("two further terms have the same kind and name")


def _floating(image: Array) -> Array:
    """Return an image in double precision, so that sums over it are."""
    return image.astype(np.result_type(image.dtype, np.float64), copy=False)
