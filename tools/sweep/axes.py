"""The two settings that a sweep goes over: ``style-layers=conv1_1..conv5_1``, ``content-weight=1e-5..1e-2``."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.errors import unknown_name
from tools.cli.command_line import natural_int, positive_float
from tools.cli.options import ARGUMENTS, style_statistics
from tools.cli.value_lists import Labeled, layer_sets, listed_values, style_depths, typed
from tools.media.images import pictures_in

PICTURES = ("content", "style")
"""Axes that are no options: the photograph and the painting."""

FILES = (*PICTURES, "model", "init")
"""Settings whose values are, or may be, files."""

DECADES = ("content_weight", "style_weight", "learning_rate")
"""Options whose ranges go in steps of ten."""

MAX_RANGE = 100_000
"""Longer ranges of seeds are taken for a slip."""

NAME_BYTES = 50
"""Of a cell's file name, what stands for the name or the value of a setting at most: together less than 255."""

FIXED = ("device", "memory")
"""Options that change where the pictures are made, and not the pictures."""


@dataclass(frozen=True)
class Axis:
    """One setting and its values.

    Parameters
    ----------
    setting : the name of one of the ``Options``, or one of ``PICTURES``.
    values : as the option takes them; paths for ``PICTURES``.
    labels : of the values, for people.
    """

    setting: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The setting as a person writes it."""
        return self.setting.replace("_", "-")


NO_AXIS = Axis("", (None,), ("",))
"""Of a grid with one row or one column only."""


def axis_names() -> tuple[str, ...]:
    """Return what an axis can go over."""
    options = [name.replace("_", "-") for name in ARGUMENTS if name not in FIXED]
    return (*options, *PICTURES)


def parse_axis(text: str) -> Axis:
    r"""Return the axis that ``NAME=VALUE,VALUE,...`` stands for.

    Layers and statistics of one value are joined by ``+``, and so are the weights of one blend. ``A..B`` stands for
    several values: all sets of the paper's style layers from the one up to ``A`` to the one up to ``B``, every whole
    number for seeds, steps of ten for weights and learning rates. A folder stands for its pictures. A comma in a file's
    name is written ``\,``.

    Raises ValueError for a name or a value that does not exist, for one that is given twice, and where there is none.
    """
    name, equals, listed = text.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE,VALUE,...; NAME is one of {', '.join(axis_names())}")
    if name not in axis_names():
        raise ValueError(unknown_name("axis", name, axis_names()))
    setting = name.replace("-", "_")
    if setting in FILES:
        _check_commas(listed)
    found = listed_values(text, listed, functools.partial(_values, setting))
    if setting in PICTURES:
        return picture_axis(setting, [path for path, _ in found])
    if setting in FILES:  # the folders of a file tell nothing, and not everybody should know them
        return Axis(setting, tuple(value for value, _ in found), distinct_names([Path(label) for _, label in found]))
    return _axis(setting, found)


def picture_axis(setting: str, paths: Sequence[Path]) -> Axis:
    """Return an axis over pictures, labeled by the shortest of their names that tells them apart."""
    return Axis(setting, tuple(paths), distinct_names(paths))


def distinct_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return names for files: ``a``; else ``a.png``; else with as many of the folders as it takes: ``one/a``."""
    for parts in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        ends = [Path(*path.parts[-parts:]) for path in paths]
        for names in ([end.parent / end.stem for end in ends], ends):
            if len(set(names)) == len(names):
                return tuple(str(name) for name in names)
    return tuple(str(path) for path in paths)


def number_axis(setting: str, values: Sequence[float]) -> Axis:
    """Return an axis over numbers."""
    return Axis(setting, tuple(values), tuple(number_label(value) for value in values))


def number_label(number: float) -> str:
    """Return a number as a person writes it: ``1e-3``, ``0.25``, ``300``."""
    if number == 0 or 0.1 <= number < 10_000:
        return f"{number:g}"
    mantissa, exponent = f"{number:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


@functools.cache
def file_names(axis: str, labels: tuple[str, ...]) -> list[str]:
    """Return what stands for each value in the names of its cells' files, on any disk; nothing where there is no axis.

    Parameters
    ----------
    axis, labels : an axis' name and its values' labels, of any characters.
    """
    if not axis:
        return ["" for _ in labels]
    axis, *short = (
        re.sub(r"[^\w.+-]+", "-", text).strip("-.").encode()[:NAME_BYTES].decode(errors="ignore")
        for text in (axis, *labels)
    )
    if len({name.casefold() for name in short}) < len(short):  # on some disks a.png is A.png
        short = [f"{index}-{name}" for index, name in enumerate(short, 1)]
    return [f"{axis}={name}" for name in short]


def style_depth_axis(first: str, last: str) -> Axis:
    """Return the axis over the sets of the paper's style layers, from that up to ``first`` to that up to ``last``."""
    return _axis("style_layers", style_depths(first, last))


def _axis(setting: str, found: Sequence[Labeled]) -> Axis:
    return Axis(setting, tuple(value for value, _ in found), tuple(label for _, label in found))


def _check_commas(listed: str) -> None:
    """Raise ValueError where several parts together are a file's name, and the first of them alone is none."""
    parts = re.split(r"(?<!\\),", listed)
    for first, part in enumerate(parts):
        if _exists(part):
            continue
        for last in range(first + 2, len(parts) + 1):
            name = ",".join(parts[first:last])
            if _exists(name):
                written = name.strip().replace(",", "\\,")
                raise ValueError(f"the comma in the name of a file is written with a backslash, in quotes: '{written}'")


def _exists(name: str) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long is none
        return Path(name.strip()).exists()
    return False


def _values(setting: str, text: str) -> list[Labeled]:
    """Return the values, with their labels, that one part of the list stands for."""
    first, dots, last = (part.strip() for part in text.partition(".."))
    if setting in PICTURES:
        path = Path(text)
        paths = pictures_in(path) if path.is_dir() else [path]
        axis = picture_axis(setting, paths)
        return list(zip(axis.values, axis.labels, strict=True))
    if setting.endswith("_layers"):
        return layer_sets(setting, text)
    if setting == "style_statistics":
        return [(typed(setting, lambda part: style_statistics(part, "+"), text), text)]
    if dots and setting == "seed":
        low, high = typed(setting, natural_int, first), typed(setting, natural_int, last)
        _check_range(low <= high, text, "whole numbers")
        if high > low + MAX_RANGE:
            raise ValueError(f"{text!r} has more than {MAX_RANGE:,} numbers: give a shorter range")
        return [(number, str(number)) for number in range(low, high + 1)]
    if dots and setting in DECADES:
        numbers = _decades(typed(setting, positive_float, first), typed(setting, positive_float, last), text)
        return [(number, number_label(number)) for number in numbers]
    if setting == "blend":
        return [(typed(setting, ARGUMENTS[setting]["type"], text.replace("+", ",")), text)]
    return [(typed(setting, ARGUMENTS[setting].get("type", str), text), text)]


def _decades(low: float, high: float, text: str) -> list[float]:
    """Return ``low``, ten times ``low`` ... up to ``high``, each as the number that a person would write."""
    _check_range(low <= high, text, "steps of ten")
    numbers = [Decimal(repr(low))]
    while numbers[-1] * 10 <= Decimal(repr(high)):
        numbers.append(numbers[-1] * 10)
    return [float(number) for number in numbers]


def _check_range(fits: bool, text: str, steps: str) -> None:
    if not fits:
        raise ValueError(f"{text!r} is no range that goes up in {steps}")
