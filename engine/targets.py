"""What the terms of a loss aim at: from a content image and style images to terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from engine import statistics
from engine.ops import Array
from engine.pieces import added_up, style_edges
from engine.plan import Tape
from engine.regions import Guide, Region, at_layer, counts_of, guides_of
from engine.selection import checked_weight
from engine.stages import Passes
from engine.statistics import Target
from engine.terms import Content, MomentStyle, OfStyle, ShiftedStyle, SlicedStyle, Style
from engine.transparency import split_alpha
from engine.view import Counted, View
from kernels import Device

OneStyle = Array | Sequence[tuple[Array, float]]
Styles = OneStyle | Mapping[str, OneStyle]


@dataclass(frozen=True, eq=False)
class StyleParts:
    """What a style consists of.

    Parameters
    ----------
    layers : w_l of each.
    statistics : the weight of each, of ``engine.statistics.STATISTICS``.
    """

    layers: Mapping[str, float]
    statistics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _StyleImage:
    """The targets of one style image.

    Parameters
    ----------
    number : from 1 where there are several, else 0.
    share : its weight, of 1 for all of them.
    targets : of its moments, by layer.
    shifted : by layer and direction, where there is a pair of positions.
    quantiles : of its features along the directions, by layer.
    """

    number: int
    share: float
    targets: dict[str, Target]
    shifted: dict[tuple[str, str], Array]
    quantiles: dict[str, Array]


# ---- content ----


def content_terms(passes: Passes, content: Array, layers: Mapping[str, float], mask: Array | None) -> list[Content]:
    """Return the terms of the content image.

    Parameters
    ----------
    content : (H, W, 3), RGB, 0..255.
    layers : the weight of each.
    mask : (H, W), 0 and above, how much each position counts; None counts each once.

    Raises ValueError for a mask that does not fit.
    """
    targets = _content_targets(passes, content, layers) if layers else {}
    counted = None if mask is None else counts_of(mask, np.shape(content))
    device = passes.network.device
    return [
        Content(layer, P, layers[layer], None if counted is None else _at_layer(device, counted, P.shape)[0])
        for layer, P in targets.items()
    ]


def _content_targets(passes: Passes, content: Array, layers: Mapping[str, float]) -> dict[str, Array]:
    """Return the content image's features by layer, (H_l, W_l, N_l), as they are stored."""
    image, found = passes.network.checked_image(content), dict[str, Array]()
    begun = passes.network.placed(image)
    for stage in passes.stages(image.shape, layers):
        for view in passes.views(stage, begun):
            found |= {layer: view.put_together(layer, found.get(layer)) for layer in stage.outputs}
            del view
        if stage.end is not None:
            begun = found[stage.end]
    return {layer: found[layer] for layer in layers}


# ---- style ----


def style_terms(passes: Passes, parts: StyleParts, style: Styles) -> list[OfStyle]:
    """Return the terms of one style for the whole picture.

    Parameters
    ----------
    style : as for ``engine.objective.Objective``.

    Raises ValueError for style images or weights that do not fit.
    """
    return _terms_of(passes, parts, style, 0, {}, {}) if parts.layers else []


def region_terms(passes: Passes, parts: StyleParts, regions: Sequence[Region], shape: tuple[int, ...]) -> list[OfStyle]:
    """Return the terms of each region: its style's, with its share of the picture as a factor.

    Parameters
    ----------
    shape : of the picture, (H, W, 3).

    Raises ValueError for masks or styles that do not fit, and for a region that has no position at a layer.
    """
    if not (parts.layers and regions):
        return []
    guides = guides_of([region.mask for region in regions], shape)
    positions = passes.network.cutter((*guides[0].shape, 3), parts.layers, passes.edges).positions
    terms: list[OfStyle] = []
    for number, (region, guide) in enumerate(zip(regions, guides, strict=True), 1):
        placed, shares = {}, {}
        for layer in parts.layers:
            placed[layer] = _at_layer(passes.network.device, guide, positions[layer])
            if not placed[layer][1]:
                raise ValueError(f"region {number} is too small for {layer!r}")
            shares[layer] = placed[layer][1] / (positions[layer][0] * positions[layer][1])
        terms += _terms_of(passes, parts, region.style, number, placed, shares)
    return terms


def at_scales(fine: OneStyle, coarse: OneStyle, layers: Sequence[str]) -> dict[str, OneStyle]:
    """Return a style for each layer: the one for the fine layers, which see strokes, the other for the coarse ones.

    Parameters
    ----------
    fine, coarse : as for ``engine.objective.Objective``.
    layers : of the style, from the image upwards. The lower half is fine; of the paper's five these are conv1_1 and
        conv2_1.

    Raises ValueError for fewer than two layers.

    Source: Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling Perceptual Factors in Neural Style Transfer"
    (2017), section 6, which makes a style image of both beforehand; here both act at once.
    """
    if len(layers) < 2:
        raise ValueError(f"two scales of style need two style layers at least, there is {len(layers)}")
    return {layer: fine if number < len(layers) // 2 else coarse for number, layer in enumerate(layers)}


def _terms_of(
    passes: Passes,
    parts: StyleParts,
    style: Styles,
    region: int,
    guides: Mapping[str, tuple[Array, float]],
    shares: Mapping[str, float],
) -> list[OfStyle]:
    """Return the terms of one style.

    Parameters
    ----------
    region : its number, from 1; 0 for the whole picture.
    guides : of the region by layer, and their sums; none for the whole picture.
    shares : of the picture, the region's by layer.
    """
    chosen = parts.statistics
    terms: list[OfStyle] = []
    targets, of_layer = dict[str, Array](), dict[str, list[_StyleImage]]()
    for one_style, layers in _by_style(style, parts.layers):
        found, style_images = _style_targets(passes, chosen, one_style, layers)
        targets |= found
        of_layer |= dict.fromkeys(layers, style_images)
    for layer, w_l in parts.layers.items():
        w_l, (guide, size) = w_l * shares.get(layer, 1.0), guides.get(layer, (None, None))
        if "gram" in chosen:
            terms.append(Style(layer, targets[layer], w_l * chosen["gram"], region, guide, size))
        if "sliced" in chosen:
            sliced = [(one.share * statistics.balance(one.targets[layer]), one) for one in of_layer[layer]]
            total = sum(share for share, _ in sliced)
            of_images = tuple((share / (total or 1.0), one.quantiles[layer]) for share, one in sliced)
            terms.append(SlicedStyle(layer, of_images, w_l * chosen["sliced"] * total, region, guide, size))
        for one in of_layer[layer]:
            place: dict[str, Any] = {"region": region, "guide": guide, "painting": one.number}
            for name, weight in chosen.items():
                weight *= w_l * one.share
                if name == "shifted":
                    terms += [
                        ShiftedStyle(layer, direction, one.shifted[layer, direction], weight / 2, **place)
                        for direction in statistics.DIRECTIONS
                        if (layer, direction) in one.shifted
                    ]
                elif name not in ("gram", "sliced"):
                    target = one.targets[layer]
                    factor = 1.0 if name == "covariance" else statistics.balance(target)
                    terms.append(MomentStyle(name, layer, target, weight * factor, size=size, **place))
    return terms


def _by_style(style: Styles, layers: Mapping[str, float]) -> list[tuple[OneStyle, list[str]]]:
    """Return the different styles, each with its layers."""
    if not isinstance(style, Mapping):
        return [(style, list(layers))]
    if set(style) != set(layers):
        raise ValueError(
            f"a style for each layer names {', '.join(style) or 'none'}, the style layers are {', '.join(layers)}"
        )
    groups: dict[int, tuple[OneStyle, list[str]]] = {}
    for layer in layers:
        groups.setdefault(id(style[layer]), (style[layer], []))[1].append(layer)
    return list(groups.values())


def _style_targets(
    passes: Passes, chosen: Mapping[str, float], style: OneStyle, layers: Sequence[str]
) -> tuple[dict[str, Array], list[_StyleImage]]:
    """Return A / M_a of some layers, averaged over the style images by their weights, and their other targets.

    Of other statistics than Gram matrices the losses are added up: the average would not have their gradient.
    """
    images = [(style, 1.0)] if isinstance(style, np.ndarray) else list(style)
    if not images:
        raise ValueError("the list of style images is empty")
    if not all(isinstance(image, tuple) and len(image) == 2 for image in images):
        raise ValueError("style must be one image or a list of (image, weight)")
    shares = [checked_weight("the weight of a style image", share) for _, share in images]
    if max(shares) <= 0:
        raise ValueError("the weights of the style images are all zero")
    shares = [share / max(shares) for share in shares]  # the sum of very large ones would be infinite
    network = passes.network
    targets: dict[str, Array] = {}
    style_images: list[_StyleImage] = []
    others = set(chosen) - {"gram"}
    for number, ((image, _), share) in enumerate(zip(images, shares, strict=True), 1):
        colors, alpha = split_alpha(image)
        view, looked_at = _measured(passes, chosen, network.checked_image(colors), alpha, layers)
        for layer, of in looked_at.items():
            A, M_a = view.guided_gram(of), of.size or view.positions(layer)
            targets[layer] = targets.get(layer, 0) + network.device.fetch(A) * (share / sum(shares) / M_a)
        if others and share:
            of_moments = looked_at.items() if others - {"shifted"} else ()
            own = {layer: Target(view.moments(of)) for layer, of in of_moments}
            directions = statistics.DIRECTIONS if "shifted" in others else ()
            shifted = {
                (layer, direction): view.shifted(of, direction)
                for (layer, of), direction in product(looked_at.items(), directions)
                if view.count_pairs(of, direction)
            }
            is_sorted = looked_at.items() if "sliced" in others else ()
            quantiles = {layer: view.quantiles(of) for layer, of in is_sorted}
            which = number if len(images) > 1 else 0
            style_images.append(_StyleImage(which, share / sum(shares), own, shifted, quantiles))
    if network.device.kind == "cuda":
        return {layer: network.device.put(A.astype(np.float32)) for layer, A in targets.items()}, style_images
    return targets, style_images


def _measured(
    passes: Passes, chosen: Mapping[str, float], colors: Array, alpha: Guide | None, layers: Sequence[str]
) -> tuple[View, dict[str, Counted]]:
    """Return a view of a style image with the sums that its targets are made of, and which positions count.

    Parameters
    ----------
    chosen : statistics.
    colors : (H, W, 3).
    alpha : (H, W), how much each position counts, 0..1; None counts each once.
    """
    network = passes.network
    sums, looked_at = dict[Any, Any](), {layer: Counted(layer) for layer in layers}
    passes = replace(passes, edges=style_edges(passes.edges), waist=None)
    (stage,) = passes.stages(colors.shape, layers)
    for view in passes.views(stage, network.placed(colors)):
        if alpha is not None and not sums:
            positions = network.shapes(colors.shape[0], colors.shape[1], layers)
            guides = {layer: _at_layer(network.device, alpha, positions[layer]) for layer in layers}
            looked_at = {layer: Counted(layer, 0, guide, size) for layer, (guide, size) in guides.items()}
        for of in looked_at.values():
            view.guided_gram(of)
            if set(chosen) - {"gram", "shifted"}:
                view.total(of)
            for direction in statistics.DIRECTIONS if "shifted" in chosen else ():
                if view.count_pairs(of, direction):
                    view.shifted(of, direction)
            if "sliced" in chosen:
                view.quantiles(of)
        added_up(sums, view.sums)
        summed = replace(view, tape=Tape(view.tape.plan, {}), sums=sums, _made={})
        del view  # and the features that it holds, before the next
    return summed, looked_at


def _at_layer(device: Device, guide: Guide, shape: tuple[int, ...]) -> tuple[Array, float]:
    """Return a guide at the size of a layer's features, (H_l, W_l, ...), on the device, and its sum."""
    of_layer = at_layer(guide, *shape[:2])
    return device.put_parameter(of_layer, np.dtype(np.float64)), float(of_layer.sum())
