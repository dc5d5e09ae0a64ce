"""Which layers and statistics take part in a loss, and how much they count: names, or names with weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from engine.errors import unknown_name
from engine.statistics import STATISTICS

PAPER_CONTENT_LAYERS = ("conv4_2",)
PAPER_STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
PAPER_STATISTICS = ("gram",)

Layers = str | Iterable[str] | Mapping[str, float]
Statistics = str | Iterable[str] | Mapping[str, float]


def layer_names(layers: Layers) -> list[str]:
    """Return the names in a choice of layers: one name, several, or the keys of {name: weight}."""
    return [layers] if isinstance(layers, str) else list(layers)


def weighted_layers(layers: Layers, kind: str) -> dict[str, float]:
    """Return the weight of each layer, where only names are given 1 for content and 1 / (number of layers) for style.

    Parameters
    ----------
    kind : "content" or "style".

    Raises ValueError for a layer that is named twice, and for weights that are negative or not finite.
    """
    if isinstance(layers, Mapping):
        return {name: checked_weight(f"the weight of {name!r}", weight) for name, weight in layers.items()}
    names = layer_names(layers)
    if len(set(names)) < len(names):
        raise ValueError(f"a {kind} layer is named twice in {', '.join(names)}")
    weight = 1.0 if kind == "content" else 1.0 / max(len(names), 1)
    return dict.fromkeys(names, weight)


def checked_statistics(given: Statistics) -> dict[str, float]:
    """Return the weight of each style statistic, 1 where only names are given; raises ValueError for what is none."""
    weights: dict[str, float]
    if isinstance(given, Mapping):
        weights = dict(given)
    else:
        weights = dict.fromkeys([given] if isinstance(given, str) else given, 1.0)
    for name in weights:
        if name not in STATISTICS:
            raise ValueError(unknown_name("style statistic", name, STATISTICS))
    if not weights:
        raise ValueError("a style consists of at least one statistic, none was given")
    return {name: checked_weight(f"the weight of {name!r}", weight) for name, weight in weights.items()}


def used_statistics(given: Statistics) -> dict[str, float]:
    """Return the weight of each style statistic that takes part: those of weight 0 only where there is no other."""
    chosen = checked_statistics(given)
    return {name: weight for name, weight in chosen.items() if weight} or chosen


def checked_weight(name: str, weight: float) -> float:
    """Return a weight; raises ValueError, with its name, where it is negative or not finite."""
    if not np.isfinite(weight) or weight < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {weight}")
    return float(weight)
