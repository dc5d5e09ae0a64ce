"""Lists of values as the command line takes them: ``VALUE,VALUE,...``, and sets of layers among them."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from typing import Any

from engine.errors import unknown_name
from engine.selection import PAPER_STYLE_LAYERS
from engine.vgg import other_names
from tools.cli.options import layer_weights

Labeled = tuple[Any, str]
"""A value, and what people call it."""


def listed_values(text: str, listed: str, values_of: Callable[[str], Iterable[Labeled]]) -> list[Labeled]:
    """Return what the parts of a list stand for.

    Parameters
    ----------
    text : what messages call the list.
    listed : its parts, with commas between them.
    values_of : returns the values of one part.

    Raises ValueError for a value that is empty or given twice, and where there is none.
    """
    found: list[Labeled] = []
    known = set[Any]()
    for part in split_list(listed):
        if not part:
            raise ValueError(f"{text!r} has an empty value" if listed.strip() else f"{text!r} has no values")
        for value, label in values_of(part):
            try:
                is_known = value in known
                known.add(value)
            except TypeError:  # layers with their weights
                is_known = any(value == other for other, _ in found)
            if is_known:
                raise ValueError(f"{text!r} has {label} twice")
            found.append((value, label))
    return found


def split_list(listed: str) -> list[str]:
    """Return the parts between commas; one behind a backslash belongs to its part."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", listed)]


def layer_sets(setting: str, text: str) -> list[Labeled]:
    """Return the sets of layers, with their weights, that one part of a list stands for.

    Layers are joined by ``+``; of style layers ``A..B`` are all sets of the paper's, see ``style_depths``.

    Parameters
    ----------
    setting : ``"content_layers"`` or ``"style_layers"``, whose weights are 1 and 1 / (number of layers) by default.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    if dots and setting == "style_layers":
        return style_depths(first, last)
    layers = typed(setting, lambda part: layer_weights(part, "+"), text)
    default = 1.0 if setting == "content_layers" else 1 / len(layers)
    return [({name: default if given is None else given for name, given in layers.items()}, text)]


def style_depths(first: str, last: str) -> list[Labeled]:
    """Return the sets of the paper's style layers, from that up to ``first`` to that up to ``last``."""
    # Numbers of torchvision's depend on the layers between these.
    others = {other: name for other, name in other_names(PAPER_STYLE_LAYERS, False).items() if "." not in other}
    first, last = others.get(first, first), others.get(last, last)
    for name in (first, last):
        if name not in PAPER_STYLE_LAYERS:
            raise ValueError(f"{unknown_name('style layer', name, PAPER_STYLE_LAYERS)} for a range")
    low, high = PAPER_STYLE_LAYERS.index(first), PAPER_STYLE_LAYERS.index(last)
    if low > high:
        raise ValueError(f"the range {first}..{last} is empty: {first} lies above {last}")
    sets = [PAPER_STYLE_LAYERS[: depth + 1] for depth in range(low, high + 1)]
    labels = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in sets]
    return [({name: 1 / len(names) for name in names}, label) for names, label in zip(sets, labels, strict=True)]


def typed(setting: str, parse: Callable[[str], Any], text: str) -> Any:
    """Return what an argument type makes of a text; its errors become ValueErrors that name the setting."""
    try:
        return parse(text)
    except ArgumentTypeError as error:
        raise ValueError(f"{setting.replace('_', '-')}: {error}") from None
